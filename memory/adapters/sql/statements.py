"""The statements of every commit and of the plain reads: built once with SQLAlchemy Core, compiled once for a dialect.

They run on the driver's own cursor: with one small statement after the other, what SQLAlchemy does for each would cost more
than sqlite itself (measured: 57 us for an append through `Connection.execute`'s fast path, 39 us so, 20 us in bare sqlite3).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from memory.adapters.sql.tables import commits, conversations, counts, entries, outbox, runs
from memory.domain.records import ConversationRecord

_c, _r, _m, _k, _n, _o = conversations.c, runs.c, entries.c, commits.c, counts.c, outbox.c

RECORD_COLUMNS: Final = tuple(_c.key if name == "incarnation" else _c[name] for name in ConversationRecord._fields)
"""A conversation's columns in the order of `ConversationRecord`; the key is the incarnation."""


RECEIPTS_KEPT: Final = 24 * 3600 * 1_000_000
"""Microseconds: after a lost answer, a commit can be repeated for at least this long."""

_FORGOTTEN_AT_ONCE: Final = 5_000


def record_of(row: Sequence[Any]) -> ConversationRecord:
    """Return the record in a row of `RECORD_COLUMNS`."""
    record = ConversationRecord(*row)
    return record._replace(incarnation=str(record.incarnation))


def counted(namespace: str, now: int) -> sa.Select[tuple[int]]:
    """Select the number of conversations in a namespace, without those that have expired and are not purged yet."""
    expired = sa.select(sa.func.count()).where(_c.namespace == namespace, _c.expires_at <= now).scalar_subquery()
    kept = sa.select(sa.func.coalesce(sa.func.sum(_n.conversations), 0)).where(_n.namespace == namespace)
    return sa.select(kept.scalar_subquery() - expired)


def not_expired(now: "int | sa.BindParameter[int]") -> sa.ColumnElement[bool]:
    """Hold for conversations that are not hidden."""
    return sa.or_(_c.expires_at.is_(None), _c.expires_at > now)


def _parameters(*columns: sa.ColumnClause[Any]) -> dict[str, sa.BindParameter[Any]]:
    return {column.name: sa.bindparam(column.name, type_=column.type) for column in columns}


def _insert(table: sa.Table) -> sa.Insert:
    """Insert a row of parameters in the order of the columns, without a key that the database assigns."""
    return sa.insert(table).values(_parameters(*[column for column in table.c if column.autoincrement is not True]))


def _number(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)


_first_of_all = sa.select(sa.func.min(_c.namespace).label("namespace")).cte("names", recursive=True)
_following = sa.select(sa.func.min(_c.namespace)).where(_c.namespace > _first_of_all.c.namespace).scalar_subquery()
_names = _first_of_all.union_all(sa.select(_following).where(_first_of_all.c.namespace.is_not(None)))
_named = (_c.namespace == sa.bindparam("namespace", type_=sa.Text)) & (_c.id == sa.bindparam("id", type_=sa.Text))
_present = _named & not_expired(_number("now"))
_of_conversation = _r.conversation_key == _number("key")
_before = _r.position < _number("before")
_run_columns = (_r.position, _r.id, _r.input, _r.output, _r.metadata, _r.created_at)


def _runs(*, from_end: bool) -> sa.CompoundSelect[Any]:
    """Select a conversation's state and a window of its runs in one statement, so that both are of one moment.

    The state is the row without an id; its columns are the key, the version (instead of a time) and the last position. The key
    is looked up twice: in a join with the runs, sqlite would copy the window, and PostgreSQL would sort all runs.
    """
    order = _r.position.desc() if from_end else _r.position
    key = sa.select(_c.key).where(_present).scalar_subquery()
    found = sa.select(*_run_columns, sa.cast(sa.null(), sa.BigInteger).label("last_position"))
    window = found.where(_r.conversation_key == key, _r.position > _number("after"), _before)
    texts = [sa.cast(sa.null(), sa.Text).label(name) for name in ("id", "input", "output", "metadata")]
    state = sa.select(_c.key, *texts, _c.version, _c.last_position).where(_present)
    return sa.union_all(state, sa.select(window.order_by(order).limit(_number("limit")).subquery("window_")))


STATEMENTS: Final[dict[str, sa.ClauseElement]] = {
    "get": sa.select(*RECORD_COLUMNS).where(_present),
    # From each name to the next one in the index: DISTINCT would read all of it.
    "namespaces": sa.select(_names.c.namespace).where(_names.c.namespace.is_not(None)),
    "first_runs": _runs(from_end=False),
    "last_runs": _runs(from_end=True),
    "lock": sa.select(*RECORD_COLUMNS).where(_named).with_for_update(),
    "append": sa.update(conversations)
    .where(_present)
    .values(
        run_count=_c.run_count + _number("count"),
        last_position=_c.last_position + _number("count"),
        updated_at=sa.case((_c.updated_at > _number("at"), _c.updated_at), else_=_number("at")),  # times never go back
    )
    .returning(_c.key, _c.version, _c.run_count, _c.last_position),
    "create": _insert(conversations).returning(_c.key),
    "update": sa.update(conversations)
    .where(_c.key == _number("key"))
    .values(_parameters(_c.metadata, _c.version, _c.run_count, _c.last_position, _c.updated_at, _c.expires_at)),
    "clear_runs": sa.delete(runs).where(_of_conversation),
    "remove": sa.delete(conversations).where(_c.key == _number("key")),
    "remove_entries": sa.delete(entries).where(_m.conversation_key == _number("key")),
    "remove_entry": sa.delete(entries).where(
        _m.conversation_key == _number("key"), _m.path == sa.bindparam("path"), _m.value == sa.bindparam("value")
    ),
    "add_entry": _insert(entries),
    "remove_runs_before": sa.delete(runs).where(_of_conversation, _before).returning(_r.position),
    "remove_run": sa.delete(runs).where(_of_conversation, _r.position == _number("position")).returning(_r.position),
    "replace_run": sa.update(runs)
    .where(_of_conversation, _r.position == _number("position"))
    .values({column.name: sa.bindparam(f"new_{column.name}", type_=column.type) for column in _run_columns[1:]})
    .returning(_r.position),
    "add_run": _insert(runs),
    "expired": sa.select(_c.key)
    .where(_c.namespace == sa.bindparam("namespace", type_=sa.Text), _c.expires_at <= _number("now"))
    .limit(_number("limit"))
    .with_for_update(skip_locked=True),
    "receipt": sa.select(_k.receipt).where(
        _k.namespace == sa.bindparam("namespace"), _k.token == sa.bindparam("token")
    ),
    "add_outbox_entry": _insert(outbox),
    "outbox_entries": sa.select(_o.number, _o.namespace, _o.changes)
    .where(_o.replica == sa.bindparam("replica"))
    .order_by(_o.number)
    .limit(_number("limit")),
    "remove_outbox_entry": sa.delete(outbox).where(_o.number == _number("number")),
    "rename_replica": sa.update(outbox)
    .where(_o.replica == sa.bindparam("replica"))
    .values(replica=sa.bindparam("name")),
    "waiting": sa.select(_o.replica, sa.func.count(), sa.func.min(_o.at)).group_by(_o.replica),
}


def _by_dialect(name: str) -> dict[str, sa.ClauseElement]:
    """Return the statements that differ by database. On PostgreSQL receipts age by the server's clock: clients' clocks differ."""
    now: sa.ColumnElement[int] = _number("now")
    insert: Any = sqlite.insert
    if name == "postgresql":
        now = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1_000_000, sa.BigInteger)
        insert = postgresql.insert
    old = sa.select(_k.namespace, _k.token).where(_k.at < now - RECEIPTS_KEPT).order_by(_k.at).limit(_FORGOTTEN_AT_ONCE)
    count = insert(counts).values(_parameters(*counts.c))
    return {
        "add_receipt": sa.insert(commits).values({**_parameters(_k.namespace, _k.token, _k.receipt), "at": now}),
        "forget_receipts": sa.delete(commits).where(
            sa.tuple_(_k.namespace, _k.token).in_(old.with_for_update(skip_locked=True))
        ),
        "count": count.on_conflict_do_update(
            index_elements=[_n.namespace, _n.shard],
            set_={"conversations": _n.conversations + count.excluded.conversations},
        ),
    }


SchemaMap: TypeAlias = Mapping[str | None, str | None]


class _Compiled(NamedTuple):
    text: str
    names: Sequence[str]
    """The names of the parameters, in order."""
    constants: Mapping[str, object]
    """Parameters with values of the statement's own, such as the OFFSET 0 that SQLAlchemy adds to each LIMIT on sqlite."""


class Statements:
    """`STATEMENTS`, compiled for one dialect and one ``schema_translate_map``."""

    def __init__(self, dialect: Dialect, schemas: SchemaMap | None = None) -> None:
        self._is_sqlite = dialect.name == "sqlite"
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
        text, names, constants = self._compiled[name]
        if constants:
            values = {**constants, **values}
        cursor.execute(text, [values[name] for name in names] if self._is_sqlite else values)
        return cursor

    def execute_many(self, cursor: DBAPICursor, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Run an insert for many rows, each in the order of its table's columns."""
        text, names, _ = self._compiled[name]
        if self._is_sqlite:
            cursor.executemany(text, rows)
        elif len(rows) == 1:  # psycopg takes a third of the time
            cursor.execute(text, dict(zip(names, rows[0], strict=True)))
        else:
            cursor.executemany(text, [dict(zip(names, row, strict=True)) for row in rows])


_known: Final[WeakKeyDictionary[Dialect, dict[object, Statements]]] = WeakKeyDictionary()


def _compiled(statement: sa.ClauseElement, dialect: Dialect, schemas: SchemaMap | None) -> _Compiled:
    compiled = cast(
        SQLCompiler,
        statement.compile(dialect=dialect, schema_translate_map=schemas, render_schema_translate=bool(schemas)),
    )
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return _Compiled(compiled.string, compiled.positiontup or tuple(compiled.params), constants)
