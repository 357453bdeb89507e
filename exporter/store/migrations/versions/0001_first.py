"""States and transitions of DIDs, and the ledger of heals."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_OPEN = sa.text("status <> 'ended'")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "did_states",
        sa.Column("account", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(64), primary_key=True),
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.Column("changes", sa.Integer, nullable=False),
    )
    op.create_table(
        "did_transitions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("connection", sa.String(64), nullable=False),
        sa.Column("number", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("old", sa.String(64)),
        sa.Column("new", sa.String(64), nullable=False),
        sa.Column("issues", sa.JSON, nullable=False),
    )
    op.create_index("did_transitions_number", "did_transitions", ["number", "at"])
    op.create_index("did_transitions_at", "did_transitions", ["at"])
    op.create_table(
        "heal_attempts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("number", sa.String(64), nullable=False),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("connection", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("token", sa.String(36), nullable=False),
        sa.Column("replica", sa.String(200), nullable=False),
        sa.Column("issues", sa.JSON, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("manual", sa.Boolean, nullable=False),
        sa.Column("charged", sa.Boolean, nullable=False),
        sa.Column("feeds", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("claimed_at", sa.Float(53), nullable=False),
        sa.Column("sent_at", sa.Float(53)),
        sa.Column("answered_at", sa.Float(53)),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("http_status", sa.Integer),
        sa.Column("steps", sa.JSON, nullable=False),
        sa.Column("readiness_before", sa.JSON),
        sa.Column("readiness", sa.JSON),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("broken_since", sa.Float(53)),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "heal_attempts_one_open", "heal_attempts", ["number"], unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.create_index("heal_attempts_account", "heal_attempts", ["account", "claimed_at"])
    op.create_index("heal_attempts_number", "heal_attempts", ["number", "claimed_at"])
    op.create_table(
        "heal_dids",
        sa.Column("number", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False),
        sa.Column("connection", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.Column("until", sa.Float(53), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("forgotten_at", sa.Float(53), nullable=False),
        sa.Column("broken_since", sa.Float(53)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("heal_dids_account", "heal_dids", ["account"])
    op.create_table(
        "heal_accounts",
        sa.Column("account", sa.String(200), primary_key=True),
        sa.Column("paused", sa.Text),
        sa.Column("resumed_at", sa.Float(53), nullable=False),
        sa.Column("latched", sa.Text),
        sa.Column("latch_print", sa.String(64), nullable=False),
        sa.Column("latched_at", sa.Float(53), nullable=False),
        sa.Column("key_paused_until", sa.Float(53), nullable=False),
        sa.Column("forbidden_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("replica", sa.String(200), primary_key=True),
        sa.Column("seen_at", sa.Float(53), nullable=False),
    )
