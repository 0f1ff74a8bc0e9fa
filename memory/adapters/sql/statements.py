"""The statements of every commit and of the plain reads: built once with SQLAlchemy Core, compiled once for a dialect.

They run on the driver's own cursor: with one small statement after the other, what SQLAlchemy does for each would cost more
than sqlite itself (measured: 57 us for an append through `Connection.execute`'s fast path, 39 us so, 20 us in bare sqlite3).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ClauseElement,
    ColumnElement,
    CompoundSelect,
    Dialect,
    Select,
    Text,
    bindparam,
    case,
    delete,
    extract,
    func,
    insert,
    null,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy import (
    cast as cast_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from memory.adapters.sql.tables import commits, conversations, counts, entries, outbox, runs
from memory.domain.records import ConversationRecord

_c, _r, _m, _k, _n, _o = conversations.c, runs.c, entries.c, commits.c, counts.c, outbox.c

RECORD_COLUMNS: Final = tuple(_c.key if name == "incarnation" else _c[name] for name in ConversationRecord._fields)
"""A conversation's columns in the order of `ConversationRecord`; the key is the incarnation."""


RECEIPTS_KEPT: Final = 24 * 3600 * 1_000_000
"""Microseconds, at least: as long as a lost answer may be asked for again."""

_FORGOTTEN_AT_ONCE: Final = 5_000


def record_of(row: Sequence[Any]) -> ConversationRecord:
    """Return the record in a row of `RECORD_COLUMNS`."""
    record = ConversationRecord(*row)
    return record._replace(incarnation=str(record.incarnation))


def counted(namespace: str, now: int) -> Select[tuple[int]]:
    """Select how many conversations a namespace has, without those that have expired and are not purged yet."""
    expired = select(func.count()).where(_c.namespace == namespace, _c.expires_at <= now).scalar_subquery()
    kept = select(func.coalesce(func.sum(_n.conversations), 0)).where(_n.namespace == namespace).scalar_subquery()
    return select(kept - expired)


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


def _runs(*, from_end: bool) -> CompoundSelect[Any]:
    """Select a conversation's state and a window of its runs in one statement, so that both are of one moment.

    The state is the row without an id; its columns are the key, the version (instead of a time) and the last position. The key
    is looked up twice: in a join with the runs, sqlite would copy the window, and PostgreSQL would sort all runs.
    """
    order = _r.position.desc() if from_end else _r.position
    key = select(_c.key).where(_present).scalar_subquery()
    found = select(*_run_columns, cast_(null(), BigInteger).label("last_position"))
    window = found.where(_r.conversation_key == key, _r.position > _number("after"), _before)
    texts = [cast_(null(), Text).label(name) for name in ("id", "input", "output", "metadata")]
    state = select(_c.key, *texts, _c.version, _c.last_position).where(_present)
    return union_all(state, select(window.order_by(order).limit(_number("limit")).subquery("window_")))


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
    "clear_runs": delete(runs).where(_of_conversation),
    "remove": delete(conversations).where(_c.key == _number("key")),
    "remove_entries": delete(entries).where(_m.conversation_key == _number("key")),
    "remove_entry": delete(entries).where(
        _m.conversation_key == _number("key"), _m.path == bindparam("path"), _m.value == bindparam("value")
    ),
    "add_entry": insert(entries).values(
        {column.name: bindparam(column.name, type_=column.type) for column in entries.columns}
    ),
    "remove_runs_before": delete(runs).where(_of_conversation, _before).returning(_r.position),
    "remove_run": delete(runs).where(_of_conversation, _r.position == _number("position")).returning(_r.position),
    "replace_run": update(runs)
    .where(_of_conversation, _r.position == _number("position"))
    .values(
        {
            name: bindparam(f"new_{name}", type_=_r[name].type)
            for name in ("id", "input", "output", "metadata", "created_at")
        }
    )
    .returning(_r.position),
    "add_run": insert(runs).values({column.name: bindparam(column.name, type_=column.type) for column in runs.columns}),
    "expired": select(_c.key)
    .where(_c.namespace == bindparam("namespace", type_=Text), _c.expires_at <= _number("now"))
    .limit(_number("limit"))
    .with_for_update(skip_locked=True),
    "receipt": select(_k.receipt).where(_k.namespace == bindparam("namespace"), _k.token == bindparam("token")),
    "add_parcel": insert(outbox).values(
        {column.name: bindparam(column.name, type_=column.type) for column in outbox.columns if column is not _o.number}
    ),
    "parcels": select(_o.number, _o.namespace, _o.changes)
    .where(_o.replica == bindparam("replica"))
    .order_by(_o.number)
    .limit(_number("limit")),
    "remove_parcel": delete(outbox).where(_o.number == _number("number")),
    "waiting": select(_o.replica, func.count(), func.min(_o.at)).group_by(_o.replica),
}


def _by_dialect(name: str) -> dict[str, ClauseElement]:
    """Return the statements that are not the same for all databases. Receipts age by PostgreSQL's clock: clients' differ."""
    is_sqlite = name == "sqlite"
    now: ColumnElement[int] = (
        _number("now") if is_sqlite else cast_(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
    )
    values = {name: bindparam(name, type_=Text) for name in ("namespace", "token", "receipt")}
    old = select(_k.namespace, _k.token).where(_k.at < now - RECEIPTS_KEPT).order_by(_k.at).limit(_FORGOTTEN_AT_ONCE)
    count = (sqlite.insert if is_sqlite else postgresql.insert)(counts).values(
        {column.name: bindparam(column.name, type_=column.type) for column in counts.columns}
    )
    more = count.on_conflict_do_update(
        index_elements=[_n.namespace, _n.shard], set_={"conversations": _n.conversations + count.excluded.conversations}
    )
    return {
        "add_receipt": insert(commits).values(values | {"at": now}),
        "forget_receipts": delete(commits).where(
            tuple_(_k.namespace, _k.token).in_(old.with_for_update(skip_locked=True))
        ),
        "count": more,
    }


SchemaMap: TypeAlias = Mapping[str | None, str | None]


class _Compiled(NamedTuple):
    text: str
    order: Sequence[str] | None
    """The names of the parameters by position; None where the driver takes them by name."""
    names: Sequence[str]
    constants: Mapping[str, object]
    """Parameters that the statement itself gives: such as the OFFSET 0 that SQLAlchemy writes behind every LIMIT on sqlite."""


class Statements:
    """`STATEMENTS`, compiled for one dialect and one ``schema_translate_map``."""

    def __init__(self, dialect: Dialect, schemas: SchemaMap | None = None) -> None:
        self._compiled = {
            name: _compiled(statement, dialect, schemas)
            for name, statement in {**STATEMENTS, **_by_dialect(dialect.name)}.items()
        }

    @classmethod
    def of(cls, dialect: Dialect, schemas: SchemaMap | None) -> "Statements":
        """Return the statements for a dialect and a map, compiled at the first time."""
        known = _known.setdefault(dialect, {})
        key = tuple(sorted((schemas or {}).items(), key=repr))
        if key not in known:
            known[key] = cls(dialect, schemas)
        return known[key]

    def execute(self, cursor: DBAPICursor, name: str, values: Mapping[str, object]) -> DBAPICursor:
        """Run one statement on the driver's cursor; return that."""
        text, order, _, constants = self._compiled[name]
        if constants:
            values = {**constants, **values}
        cursor.execute(text, values if order is None else [values[name] for name in order])
        return cursor

    def execute_many(self, cursor: DBAPICursor, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Run an insert for many rows, each in the order of its table's columns."""
        text, order, names, _ = self._compiled[name]
        if order is not None:
            cursor.executemany(text, rows)
        elif len(rows) == 1:  # psycopg takes a third of the time
            cursor.execute(text, dict(zip(names, rows[0], strict=True)))
        else:
            cursor.executemany(text, [dict(zip(names, row, strict=True)) for row in rows])


_known: Final[WeakKeyDictionary[Dialect, dict[object, Statements]]] = WeakKeyDictionary()


def _compiled(statement: ClauseElement, dialect: Dialect, schemas: SchemaMap | None) -> _Compiled:
    compiled = cast(
        SQLCompiler,
        statement.compile(dialect=dialect, schema_translate_map=schemas, render_schema_translate=bool(schemas)),
    )
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return _Compiled(compiled.string, compiled.positiontup, tuple(compiled.params), constants)
