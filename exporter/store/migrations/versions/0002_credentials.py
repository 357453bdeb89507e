"""Facts of an account by its credential, the issues that an attempt was made for, people's actions, and an identity.

What 0.1.0 kept by an account's name gets the mark `account:NAME` until a process that has the account's key replaces
that by the mark of the key (`Ledger.adopt`).
"""

import time
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables, and carry over what 0.1.0 knew."""
    op.add_column("heal_attempts", sa.Column("credential", sa.String(80), nullable=False, server_default=sa.text("''")))
    op.add_column("heal_attempts", sa.Column("heal_issues", sa.JSON))
    op.add_column("heal_attempts", sa.Column("observed_at", sa.Float(53)))
    op.add_column("heal_attempts", sa.Column("did_id", sa.BigInteger))
    op.create_index("heal_attempts_did_id", "heal_attempts", ["did_id"])
    is_open = sa.text("status <> 'ended'")
    op.create_index(
        "heal_attempts_one_open_did_id",
        "heal_attempts",
        ["did_id"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("heal_attempts_credential", "heal_attempts", ["credential", "id"])
    op.add_column("heal_dids", sa.Column("heal_issues", sa.JSON))
    op.add_column("heal_dids", sa.Column("did_id", sa.BigInteger))
    op.add_column("heal_dids", sa.Column("forgotten_id", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "heal_credentials",
        sa.Column("credential", sa.String(80), primary_key=True),
        sa.Column("paused", sa.Text),
        sa.Column("resumed_at", sa.Float(53), nullable=False),
        sa.Column("latched", sa.Text),
        sa.Column("latched_at", sa.Float(53), nullable=False),
        sa.Column("key_paused_at", sa.Float(53), nullable=False),
        sa.Column("key_paused_for", sa.Float(53), nullable=False),
        sa.Column("forbidden_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "heal_refusals",
        sa.Column("credential", sa.String(80), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "operator_actions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("number", sa.String(64)),
        sa.Column("reason", sa.Text, nullable=False),
    )
    identity = op.create_table(
        "store_identity",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("accepted_at", sa.Float(53)),
        sa.Column("revision", sa.String(36), nullable=False),
    )
    row = {"id": str(uuid4()), "created_at": time.time(), "accepted_at": None, "revision": str(uuid4())}
    op.bulk_insert(identity, [row])
    op.execute("UPDATE heal_attempts SET credential = 'account:' || account, observed_at = claimed_at")
    op.execute(
        "UPDATE heal_dids SET forgotten_id = COALESCE((SELECT MAX(id) FROM heal_attempts "
        "WHERE heal_attempts.number = heal_dids.number AND claimed_at <= forgotten_at), 0)"
    )
    # The longest pause that 0.1.0 set was an hour, so that no more than this is left of one.
    op.execute(
        "INSERT INTO heal_credentials (credential, paused, resumed_at, latched, latched_at, key_paused_at, "
        "key_paused_for, forbidden_at) "
        "SELECT CASE account WHEN '' THEN '' ELSE 'account:' || account END, paused, resumed_at, latched, latched_at, "
        "key_paused_until - 3600.0, 3600.0, forbidden_at FROM heal_accounts"
    )
    op.execute(
        "INSERT INTO heal_refusals (credential, fingerprint, at) "
        "SELECT 'account:' || account, latch_print, latched_at FROM heal_accounts WHERE latched IS NOT NULL"
    )
    op.drop_table("heal_accounts")
