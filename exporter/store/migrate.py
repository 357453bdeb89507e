"""Migrations of the store by Alembic, which takes long to import: only what finds another schema comes here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from exporter.errors import StoreVersionError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def check_known(revision: str) -> None:
    """Raise `StoreVersionError` for a schema that this version does not know."""
    _, script = scripts()
    if revision not in {each.revision for each in script.walk_revisions()}:
        raise StoreVersionError(
            f"the store has schema {revision}, which a newer version of voicelink-exporter wrote; upgrade this one"
        )


def migrate_to_head(connection: Connection, current: str | None) -> None:
    """Bring a schema up to date within the transaction that is under way. Raises `StoreVersionError`."""
    if current is not None:
        check_known(current)
    config, script = scripts()
    with EnvironmentContext(config, script, fn=lambda rev, _: script._upgrade_revs("head", rev)) as context:  # noqa: SLF001 - as alembic's own command does
        context.configure(connection=connection, transactional_ddl=True)
        context.run_migrations()


def scripts() -> tuple[Config, ScriptDirectory]:
    """Return Alembic's view of the migrations that this version has."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)
