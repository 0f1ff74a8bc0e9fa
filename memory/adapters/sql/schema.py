"""The schema of a database: which revision it has, and how it gets another. Alembic does the work, under a lock."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, column, inspect, select, table

from memory.adapters.sql.engine import begin_writing
from memory.adapters.sql.tables import HEAD, VERSION_TABLE
from memory.errors import ConfigurationError, SchemaError
from memory.port.forking import FreshLock
from memory.port.repository import SchemaStatus

_IN_THIS_PROCESS: Final = FreshLock()  # Alembic's context is one for the whole process
_PACKAGE: Final = Path(__file__).parents[2]
_IN_POSTGRESQL: Final = 0x6D656D6F7279  # "memory": the key of the advisory lock
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")  # the latter takes every text as it comes


def status(connection: Connection) -> SchemaStatus:
    """Return the revision the database has, and the newest."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    versions = table(VERSION_TABLE, schema=schemas.get(None))  # neither is translated by SQLAlchemy
    if not inspect(connection).has_table(versions.name, schema=versions.schema):
        return SchemaStatus(None, HEAD)
    return SchemaStatus(connection.execute(select(column("version_num")).select_from(versions)).scalar(), HEAD)


def is_empty(connection: Connection) -> bool:
    """Tell whether a sqlite database has nothing in it yet, of ours or of anybody's."""
    return connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up, or down, to a revision, in one transaction that others who migrate wait for."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _IN_THIS_PROCESS, connection.begin():
        begin_writing(connection)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_IN_POSTGRESQL})")
        try:
            down = revision == "base" or (revision != "head" and (status(connection).current or "") > revision)
            if not down and connection.dialect.name == "postgresql":
                _check_encoding(connection)
            (command.downgrade if down else command.upgrade)(config, revision)
        except CommandError as error:
            raise SchemaError(f"{status(connection).advice()} ({error})") from error


def _check_encoding(connection: Connection) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding not in _ENCODINGS:
        raise ConfigurationError(
            f"the encoding of the database is {encoding}, which does not have every character: use a database that was "
            "created with ENCODING 'UTF8'"
        )


def _scripts() -> Path:
    """Return the folder of the revisions: inside the installed package, or beside it in a checkout."""
    installed = _PACKAGE / "migrations"
    return installed if installed.exists() else _PACKAGE.parent / "migrations"
