"""Alembic's environment for the desk's own tables. Those of `memory` have a history of their own: ``memory migrate``."""

import os

from alembic import context
from sqlalchemy import NullPool, create_engine
from support_desk.persistence import metadata

from memory.adapters.sql import include_name, include_object


def is_ours(name: str | None, type_: str) -> bool:
    """Leave out the tables of the reporting department, which are in this database too."""
    return type_ != "table" or not (name or "").startswith("report_")


engine = create_engine(os.environ["DESK_URL"], poolclass=NullPool)
with engine.begin() as connection:
    context.configure(
        connection,
        target_metadata=metadata,
        include_name=lambda name, type_, parents: include_name(name, type_, parents) and is_ours(name, type_),
        include_object=lambda item, name, type_, *rest: (
            include_object(item, name, type_, *rest) and is_ours(name, type_)
        ),
    )
    context.run_migrations()
