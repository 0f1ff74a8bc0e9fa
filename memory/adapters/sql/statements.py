"""The statements of every commit and of the plain reads: built once with SQLAlchemy Core, compiled once for a dialect.

They run on the driver's own cursor: with one small statement after the other, what SQLAlchemy does for each would cost more
than sqlite itself (measured: 57 us for an append through `Connection.execute`'s fast path, 39 us so, 20 us in bare sqlite3).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ClauseElement,
    ColumnElement,
    Dialect,
    Select,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from memory.adapters.sql.tables import commits, conversations, entries, outbox, runs
from memory.domain.records import ConversationRecord

_c, _r, _m, _k, _o = conversations.c, runs.c, entries.c, commits.c, outbox.c

RECORD_COLUMNS: Final = tuple(_c.key if name == "incarnation" else _c[name] for name in ConversationRecord._fields)
"""A conversation's columns in the order of `ConversationRecord`; the key is the incarnation."""


def not_expired(now: "int | BindParameter[int]") -> ColumnElement[bool]:
    """Hold for conversations that are not hidden."""
    return or_(_c.expires_at.is_(None), _c.expires_at > now)


def _number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger)


_first_of_all = select(func.min(_c.namespace).label("namespace")).cte("names", recursive=True)
_following = select(func.min(_c.namespace)).where(_c.namespace > _first_of_all.c.namespace).scalar_subquery()
_names = _first_of_all.union_all(select(_following).where(_first_of_all.c.namespace.is_not(None)))
_named = (_c.namespace == bindparam("namespace", type_=Text)) & (_c.id == bindparam("id", type_=Text))
_present = _named & not_expired(_number("now"))
_of_conversation = _r.conversation_key == _number("key")
_before = _r.position < _number("before")
_run_columns = (_r.position, _r.id, _r.input, _r.output, _r.metadata, _r.created_at)


def _runs(*, from_end: bool) -> Select[Any]:
    """Select a conversation's state and a window of its runs in one statement, so that both are of one moment.

    Without runs there is one row with the state. The key is found twice: joined with all runs, PostgreSQL would sort them.
    """
    order = _r.position.desc() if from_end else _r.position
    key = select(_c.key).where(_present).scalar_subquery()
    found = select(*_run_columns).where(_r.conversation_key == key, _r.position > _number("after"), _before)
    window = found.order_by(order).limit(_number("limit")).subquery("window_")
    state = select(_c.key, _c.version, _c.last_position).where(_present).subquery("state")
    return select(state, window).select_from(state.outerjoin(window, true()))


STATEMENTS: Final[dict[str, ClauseElement]] = {
    "get": select(*RECORD_COLUMNS).where(_present),
    # From each name to the next one in the index: DISTINCT would read all of it.
    "namespaces": select(_names.c.namespace).where(_names.c.namespace.is_not(None)),
    "first_runs": _runs(from_end=False),
    "last_runs": _runs(from_end=True),
    "lock": select(*RECORD_COLUMNS).where(_named).with_for_update(),
    "append": update(conversations)
    .where(_present)
    .values(
        run_count=_c.run_count + _number("count"),
        last_position=_c.last_position + _number("count"),
        updated_at=case(
            (_c.updated_at > _number("at"), _c.updated_at), else_=_number("at")
        ),  # clocks differ: never back
    )
    .returning(_c.key, _c.version, _c.run_count, _c.last_position),
    "create": insert(conversations)
    .values(
        {
            column.name: bindparam(column.name, type_=column.type)
            for column in conversations.columns
            if column is not _c.key
        }
    )
    .returning(_c.key),
    "update": update(conversations)
    .where(_c.key == _number("key"))
    .values(
        metadata=bindparam("metadata", type_=Text),
        version=_number("version"),
        run_count=_number("run_count"),
        last_position=_number("last_position"),
        updated_at=_number("updated_at"),
        expires_at=_number("expires_at"),
    ),
    "remove": delete(conversations).where(_c.key == _number("key")),
    "remove_entries": delete(entries).where(_m.conversation_key == _number("key")),
    "remove_entry": delete(entries).where(
        _m.conversation_key == _number("key"), _m.path == bindparam("path"), _m.value == bindparam("value")
    ),
    "add_entry": insert(entries).values(
        {column.name: bindparam(column.name, type_=column.type) for column in entries.columns}
    ),
    "remove_runs_before": delete(runs).where(_of_conversation, _before),
    "remove_run": delete(runs).where(_of_conversation, _r.position == _number("position")),
    "replace_run": update(runs)
    .where(_of_conversation, _r.position == _number("position"))
    .values(
        {
            name: bindparam(f"new_{name}", type_=_r[name].type)
            for name in ("id", "input", "output", "metadata", "created_at")
        }
    ),
    "add_run": insert(runs).values({column.name: bindparam(column.name, type_=column.type) for column in runs.columns}),
    "expired": select(_c.key)
    .where(_c.namespace == bindparam("namespace", type_=Text), _c.expires_at <= _number("now"))
    .limit(_number("limit"))
    .with_for_update(skip_locked=True),
    "receipt": select(_k.receipt).where(_k.namespace == bindparam("namespace"), _k.token == bindparam("token")),
    "add_receipt": insert(commits).values(
        {column.name: bindparam(column.name, type_=Text) for column in commits.columns}
    ),
    "add_outbox_entry": insert(outbox).values(
        {column.name: bindparam(column.name, type_=column.type) for column in outbox.columns if column is not _o.number}
    ),
    "outbox_entries": select(_o.number, _o.namespace, _o.changes)
    .where(_o.replica == bindparam("replica"))
    .order_by(_o.number)
    .limit(_number("limit")),
    "remove_outbox_entry": delete(outbox).where(_o.number == _number("number")),
    "rename_replica": update(outbox).where(_o.replica == bindparam("replica")).values(replica=bindparam("name")),
    "waiting": select(_o.replica, func.count(), func.min(_o.at)).group_by(_o.replica),
    "forget_receipts": delete(commits).where(_k.namespace == bindparam("namespace"), _k.token < bindparam("token")),
}


SchemaMap: TypeAlias = Mapping[str | None, str | None]


class Statements:
    """`STATEMENTS`, compiled for one dialect and one ``schema_translate_map``."""

    def __init__(self, dialect: Dialect, schemas: SchemaMap | None = None) -> None:
        self._compiled = {
            name: cast(
                SQLCompiler,
                statement.compile(dialect=dialect, schema_translate_map=schemas, render_schema_translate=bool(schemas)),
            )
            for name, statement in STATEMENTS.items()
        }

    @classmethod
    def of(cls, dialect: Dialect, schemas: SchemaMap | None) -> "Statements":
        """Return the statements for a dialect and a map, compiled at the first time."""
        compiled = _compiled.setdefault(dialect, {})
        key = tuple(sorted((schemas or {}).items(), key=repr))
        if key not in compiled:
            compiled[key] = cls(dialect, schemas)
        return compiled[key]

    def execute(self, cursor: DBAPICursor, name: str, values: Mapping[str, object]) -> DBAPICursor:
        """Run one statement on the driver's cursor; return that."""
        compiled = self._compiled[name]
        order = compiled.positiontup
        # "param_1" is the OFFSET 0 that SQLAlchemy writes behind every LIMIT on sqlite
        parameters = values if order is None else [0 if name == "param_1" else values[name] for name in order]
        cursor.execute(compiled.string, parameters)
        return cursor

    def execute_many(self, cursor: DBAPICursor, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Run an insert for many rows, each in the order of its table's columns."""
        compiled = self._compiled[name]
        if compiled.positiontup is None:
            names = list(compiled.params)
            cursor.executemany(compiled.string, [dict(zip(names, row, strict=True)) for row in rows])
        else:
            cursor.executemany(compiled.string, rows)


_compiled: Final[WeakKeyDictionary[Dialect, dict[object, Statements]]] = WeakKeyDictionary()
