"""The store's tables. The migrations make them; a test holds the two together. All times are Unix seconds."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()

did_states = Table(
    "did_states",
    metadata,
    Column("account", String(200), primary_key=True),
    Column("connection", String(64), primary_key=True),
    Column("number", String(64), primary_key=True),
    Column("state", String(64), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("changes", Integer, nullable=False),
)

did_transitions = Table(
    "did_transitions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("account", String(200), nullable=False),
    Column("connection", String(64), nullable=False),
    Column("number", String(64), nullable=False),
    Column("at", Float(53), nullable=False),
    Column("old", String(64)),
    Column("new", String(64), nullable=False),
    Column("issues", JSON, nullable=False),
    Index("did_transitions_number", "number", "at"),
    Index("did_transitions_at", "at"),
)

_OPEN = text("status <> 'ended'")
heal_attempts = Table(
    "heal_attempts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("number", String(64), nullable=False),
    Column("account", String(200), nullable=False),
    Column("connection", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("token", String(36), nullable=False),
    Column("replica", String(200), nullable=False),
    Column("issues", JSON, nullable=False),
    Column("body", JSON, nullable=False),
    Column("manual", Boolean, nullable=False),
    Column("charged", Boolean, nullable=False),
    Column("feeds", Boolean, nullable=False),
    Column("outcome", String(16)),
    Column("claimed_at", Float(53), nullable=False),
    Column("sent_at", Float(53)),
    Column("answered_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("http_status", Integer),
    Column("steps", JSON, nullable=False),
    Column("readiness_before", JSON),
    Column("readiness", JSON),
    Column("reason", Text, nullable=False),
    Column("broken_since", Float(53)),
    Column("credential", String(80), nullable=False, server_default=text("''")),
    Column("heal_issues", JSON),
    Column("observed_at", Float(53)),
    Column("did_id", BigInteger),
    Index("heal_attempts_credential", "credential", "id"),
    Index("heal_attempts_did_id", "did_id"),
    Index("heal_attempts_one_open_did_id", "did_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index("heal_attempts_one_open", "number", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index("heal_attempts_account", "account", "claimed_at"),
    Index("heal_attempts_number", "number", "claimed_at"),
    sqlite_autoincrement=True,  # the id of an attempt that was pruned is never another's
)

heal_dids = Table(
    "heal_dids",
    metadata,
    Column("number", String(64), primary_key=True),
    Column("account", String(200), nullable=False),
    Column("connection", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("until", Float(53), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("forgotten_at", Float(53), nullable=False),
    Column("broken_since", Float(53)),
    Column("reason", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("heal_issues", JSON),
    Column("did_id", BigInteger),
    Column("forgotten_id", Integer, nullable=False, server_default="0"),
    Index("heal_dids_account", "account"),
)

# One row a credential, and one with an empty mark for all of them. A claim holds both: they are the lock.
heal_credentials = Table(
    "heal_credentials",
    metadata,
    Column("credential", String(80), primary_key=True),
    Column("paused", Text),
    Column("resumed_at", Float(53), nullable=False),
    Column("latched", Text),
    Column("latched_at", Float(53), nullable=False),
    Column("key_paused_at", Float(53), nullable=False),
    Column("key_paused_for", Float(53), nullable=False),
    Column("forbidden_at", Float(53), nullable=False),
)

heal_refusals = Table(
    "heal_refusals",
    metadata,
    Column("credential", String(80), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("at", Float(53), nullable=False),
)

# What people decided: pause, resume, release, and that a new store is to be used.
operator_actions = Table(
    "operator_actions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float(53), nullable=False),
    Column("action", String(32), nullable=False),
    Column("number", String(64)),
    Column("reason", Text, nullable=False),
)

# One row: by its id a running process knows the store that it opened, by its revision that nothing changed since.
store_identity = Table(
    "store_identity",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("created_at", Float(53), nullable=False),
    Column("accepted_at", Float(53)),
    Column("revision", String(36), nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("replica", String(200), primary_key=True),
    Column("seen_at", Float(53), nullable=False),
)
