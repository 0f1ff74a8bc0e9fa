"""The statements of commits and of plain reads: built with SQLAlchemy Core, and compiled once for a dialect."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.compiler import SQLCompiler

from memory.adapters.sql.tables import commits, conversations, counts, entries, is_open, outbox, runs
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import LAST_TIME, compact
from memory.port.changes import RECEIPTS_KEPT

_c, _r, _m, _k, _n, _o = conversations.c, runs.c, entries.c, commits.c, counts.c, outbox.c

_id = sa.func.coalesce(_c.long_id, _c.id)
_special: Final[Mapping[str, sa.ColumnElement[Any]]] = {"incarnation": _c.key, "id": _id}
RECORD_COLUMNS: Final = tuple(_special[name] if name in _special else _c[name] for name in ConversationRecord._fields)
"""A conversation's columns in the order of `ConversationRecord`; the key is the incarnation."""

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
    """Return the condition that a conversation has not expired."""
    return sa.or_(_c.expires_at.is_(None), _c.expires_at > now)


def _number(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger)


def _parameters(*columns: sa.ColumnClause[Any]) -> dict[str, sa.BindParameter[Any]]:
    return {column.name: sa.bindparam(column.name, type_=column.type) for column in columns}


def _insert(table: sa.Table) -> sa.Insert:
    """Insert a row of parameters in the order of the columns, without a key that the database assigns."""
    return sa.insert(table).values(_parameters(*[column for column in table.c if column.autoincrement is not True]))


def _text(name: str) -> sa.BindParameter[str]:
    return sa.bindparam(name, type_=sa.Text)


_named = sa.and_(_c.namespace == _text("in_namespace"), _c.id == _text("with_id"))
_present = _named & not_expired(_number("now"))
_of_conversation = _r.conversation_key == _number("of")
_before = _r.position < _number("before")
RUN_COLUMNS: Final = tuple(_r[name] for name in RunRecord._fields)
"""A run's columns in the order of `RunRecord`, as which their rows can be read."""

GET: Final = sa.select(*RECORD_COLUMNS).where(_present)


def _window_of_runs(*, from_end: bool) -> sa.CompoundSelect[Any]:
    """Select a conversation's state and a window of its runs in one statement, so that both are of one moment.

    The state is the row without an id: it has the key, the last position as text and the version. The key is looked up twice: in
    a join with the runs, sqlite would copy the window, and PostgreSQL would sort all runs.
    """
    order = _r.position.desc() if from_end else _r.position
    key = sa.select(_c.key).where(_present).scalar_subquery()
    window = sa.select(*RUN_COLUMNS).where(_r.conversation_key == key, _r.position > _number("after"), _before)
    nothing = [sa.cast(sa.null(), _r[name].type).label(name) for name in ("id", "input", "output", "is_open")]
    state = sa.select(_c.key, *nothing[:3], sa.cast(_c.last_position, sa.Text), _c.version, nothing[3]).where(_present)
    return sa.union_all(state, sa.select(window.order_by(order).limit(_number("limit")).subquery("window_")))


_among: Final[dict[str, Callable[[sa.ColumnElement[str]], sa.ColumnElement[bool]]]] = {
    "sqlite": lambda column: column.in_(sa.select(sa.func.json_each(_text("ids")).table_valued("value").c.value)),
    "postgresql": lambda column: column == sa.any_(sa.bindparam("ids", type_=sa.ARRAY(sa.Text))),
}
"""The condition that a text is one of `Executor.texts`: one parameter for any number of them."""

GET_MANY: Final = {
    name: sa.select(*RECORD_COLUMNS).where(
        _c.namespace == _text("in_namespace"), among(_c.id), not_expired(_number("now"))
    )
    for name, among in _among.items()
}


def _last_runs_of() -> dict[str, sa.Select[Any]]:
    """Select the state of each conversation, with each of its last runs, or with NULLs if it has none.

    sqlite has no LATERAL, and PostgreSQL might join all runs with the condition that sqlite looks up.
    """
    latest = sa.select(*RUN_COLUMNS).where(_r.conversation_key == _c.key).order_by(_r.position.desc())
    lateral = latest.limit(_number("n")).lateral("last")
    nth = latest.with_only_columns(_r.position).limit(1).offset(_number("n") - 1)
    first = sa.func.coalesce(nth.correlate(conversations).scalar_subquery(), 0)
    joined = {
        "sqlite": (runs, sa.and_(_r.conversation_key == _c.key, _r.position >= first), RUN_COLUMNS),
        "postgresql": (lateral, sa.true(), tuple(lateral.c)),
    }
    return {
        name: sa.select(_id, _c.key, _c.version, _c.last_position, *columns)
        .select_from(conversations.outerjoin(last, own))
        .where(_c.namespace == _text("in_namespace"), _among[name](_c.id), not_expired(_number("now")))
        for name, (last, own, columns) in joined.items()
    }


LAST_RUNS_OF: Final = _last_runs_of()

# A column inside a function has no index: a database may otherwise begin with all conversations of the namespace.
OPEN_RUNS: Final = (
    sa.select(_id, *RUN_COLUMNS)
    .select_from(runs.join(conversations, _c.key == _r.conversation_key))
    .where(
        is_open,
        _r.created_at < _number("before"),
        sa.func.coalesce(_c.namespace, sa.null()) == _text("in_namespace"),
        not_expired(_number("now")),
    )
    .order_by(_r.created_at, _c.id, _r.position)
    .limit(_number("limit"))
)

FIRST_RUNS: Final = _window_of_runs(from_end=False)
LAST_RUNS: Final = _window_of_runs(from_end=True)


def _namespaces() -> sa.Select[tuple[str]]:
    """Select each namespace by a look-up of the next one in the index: DISTINCT would read all of it."""
    first = sa.select(sa.func.min(_c.namespace).label("namespace")).cte("names", recursive=True)
    following = sa.select(sa.func.min(_c.namespace)).where(_c.namespace > first.c.namespace).scalar_subquery()
    names = first.union_all(sa.select(following).where(first.c.namespace.is_not(None)))
    return sa.select(names.c.namespace).where(names.c.namespace.is_not(None))


NAMESPACES: Final = _namespaces()

LOCK: Final = sa.select(*RECORD_COLUMNS).where(_named).with_for_update()


def _latest(stored: sa.ColumnElement[int], new: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return the later of two times; the new one, if none is stored."""
    return sa.case((stored > new, stored), else_=new)


_slid = sa.case((_c.expires_after > LAST_TIME - _number("at"), LAST_TIME), else_=_number("at") + _c.expires_after)
APPEND: Final = (
    sa.update(conversations)
    .where(_present)
    .values(
        run_count=_c.run_count + _number("count"),
        last_position=_c.last_position + _number("count"),
        updated_at=_latest(_c.updated_at, _number("at")),  # times never go back
        last_run_at=_latest(_c.last_run_at, _number("run_at")),
        expires_at=sa.case((_c.expires_after.is_(None), _c.expires_at), else_=_latest(_c.expires_at, _slid)),
    )
    .returning(_c.key, _c.version, _c.run_count, _c.last_position)
)
CREATE: Final = _insert(conversations).returning(_c.key)
_EDITED: Final = (
    "metadata",
    "version",
    "run_count",
    "last_position",
    "updated_at",
    "expires_at",
    "expires_after",
    "last_run_at",
)
UPDATE: Final = (
    sa.update(conversations).where(_c.key == _number("of")).values(_parameters(*[_c[name] for name in _EDITED]))
)
REMOVE: Final = sa.delete(conversations).where(_c.key == _number("of"))

ADD_RUN: Final = _insert(runs)
REMOVE_ALL_RUNS: Final = sa.delete(runs).where(_of_conversation)
REMOVE_RUNS_BEFORE: Final = sa.delete(runs).where(_of_conversation, _before).returning(_r.position)
REMOVE_RUNS_AFTER: Final = (
    sa.delete(runs).where(_of_conversation, _r.position > _number("after")).returning(_r.position)
)
REMOVE_RUN: Final = sa.delete(runs).where(_of_conversation, _r.position == _number("at")).returning(_r.position)
REPLACE_RUN: Final = (
    sa.update(runs)
    .where(_of_conversation, _r.position == _number("at"))
    .values(_parameters(*RUN_COLUMNS[1:]))
    .returning(_r.position)
)
_others = runs.alias("others")  # SQLAlchemy would take the same table in a subquery for the updated one
_last_open = sa.select(sa.func.max(_others.c.position)).where(
    _others.c.conversation_key == _number("of"), _others.c.id == _text("with_id"), _others.c.is_open.is_(sa.true())
)
COMPLETE: Final = (
    sa.update(runs)
    .where(_of_conversation, _r.position == _last_open.scalar_subquery())
    .values(
        output=sa.bindparam("output", type_=sa.Text),
        metadata=sa.func.coalesce(sa.bindparam("metadata", type_=sa.Text), _r.metadata),
        is_open=sa.bindparam("is_open", type_=sa.Boolean),
    )
    .returning(_r.position)
)

ADD_ENTRY: Final = _insert(entries)
REMOVE_ENTRY: Final = sa.delete(entries).where(
    _m.conversation_key == _number("of"), _m.path == sa.bindparam("at"), _m.value == sa.bindparam("is")
)
REMOVE_ENTRIES: Final = sa.delete(entries).where(_m.conversation_key == _number("of"))

EXPIRED: Final = (
    sa.select(_c.key)
    .where(_c.namespace == _text("in_namespace"), _c.expires_at <= _number("now"))
    .limit(_number("limit"))
    .with_for_update(skip_locked=True)
)

RECEIPT: Final = sa.select(_k.receipt).where(_k.namespace == _text("in_namespace"), _k.token == _text("with_token"))

_added = insert(counts).values(_parameters(*counts.c))  # PostgreSQL's clause, which SQLAlchemy writes for sqlite too
ADD_COUNT: Final = _added.on_conflict_do_update(
    index_elements=[_n.namespace, _n.shard],
    set_={"conversations": _n.conversations + _added.excluded.conversations},
)

ADD_OUTBOX_ENTRY: Final = _insert(outbox)
OUTBOX_ENTRIES: Final = (
    sa.select(_o.number, _o.namespace, _o.changes)
    .where(_o.replica == _text("replica"))
    .order_by(_o.number)
    .limit(_number("limit"))
)
REMOVE_OUTBOX_ENTRY: Final = sa.delete(outbox).where(_o.number == _number("which"))
OUTBOX_OF_NAMESPACE: Final = (
    sa.select(_o.number, _o.changes)
    .where(_o.namespace == _text("in_namespace"), _o.number > _number("after"))
    .order_by(_o.number)
    .limit(_number("limit"))
)
LOCKED_OUTBOX_OF_NAMESPACE: Final = OUTBOX_OF_NAMESPACE.with_for_update()
REWRITE_OUTBOX_ENTRY: Final = sa.update(outbox).where(_o.number == _number("which")).values(changes=_text("now"))
REPLICA_LAGS: Final = sa.select(_o.replica, sa.func.count(), sa.func.min(_o.at)).group_by(_o.replica)

# On PostgreSQL receipts age by the server's clock: those of clients differ.
_server_clock = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1_000_000, sa.BigInteger)
_CLOCKS: Final[dict[str, sa.ColumnElement[int]]] = {"sqlite": _number("now"), "postgresql": _server_clock}


def _forget_receipts(now: sa.ColumnElement[int]) -> sa.Delete:
    old = sa.select(_k.namespace, _k.token).where(_k.at < now - RECEIPTS_KEPT).order_by(_k.at).limit(_FORGOTTEN_AT_ONCE)
    return sa.delete(commits).where(sa.tuple_(_k.namespace, _k.token).in_(old.with_for_update(skip_locked=True)))


def _append_one() -> sa.Select[tuple[int, int, int, int]]:
    """Append one run and write the receipt in one statement: PostgreSQL changes three tables in one round trip."""
    head = APPEND.cte("head")
    numbers = sa.func.json_build_array(
        head.c.version, sa.cast(head.c.key, sa.Text), head.c.run_count, head.c.last_position
    )
    receipt = sa.cast(sa.func.json_build_object(_text("full_id"), numbers), sa.Text)
    run = sa.select(
        head.c.key, head.c.last_position, *[sa.bindparam(f"run_{one.name}", type_=one.type) for one in RUN_COLUMNS[1:]]
    )
    written = sa.select(
        _text("in_namespace"), _text("with_token"), receipt, _server_clock + _number("longer")
    ).select_from(head)
    return sa.select(head.c.key, head.c.version, head.c.run_count, head.c.last_position).add_cte(
        sa.insert(runs).from_select([_r.conversation_key, *RUN_COLUMNS], run).cte("run"),
        sa.insert(commits).from_select([_k.namespace, _k.token, _k.receipt, _k.at], written).cte("written"),
    )


APPEND_ONE: Final = _append_one()
ADD_RECEIPT: Final = {
    name: sa.insert(commits).values(**_parameters(_k.namespace, _k.token, _k.receipt), at=now + _number("longer"))
    for name, now in _CLOCKS.items()
}


_whole = sa.case(
    (sa.func.json_valid(_k.receipt) == 1, _k.receipt), else_="{}"
)  # sqlite takes damage for a wrong statement
_ids_in_receipt: Final[dict[str, sa.ColumnElement[str]]] = {
    "sqlite": sa.func.json_each(_whole).table_valued("key").c.key,
    "postgresql": sa.func.json_object_keys(sa.cast(_k.receipt, sa.JSON)).column_valued("named"),
}
FORGET_RECEIPTS_OF: Final = {
    name: sa.delete(commits)
    .where(_k.namespace == _text("in_namespace"), sa.exists().where(_among[name](id)))
    .returning(_k.token)
    for name, id in _ids_in_receipt.items()
}
FORGET_RECEIPTS: Final = {name: _forget_receipts(now) for name, now in _CLOCKS.items()}


class _Compiled(NamedTuple):
    text: str
    names: Sequence[str]
    """The names of the parameters, in order."""
    constants: Mapping[str, object]
    """Parameters with values of the statement's own, such as the OFFSET 0 that SQLAlchemy adds to each LIMIT on sqlite."""
    is_positional: bool
    """Whether the driver takes parameters by their order, not by their names."""


_compiled: Final[WeakKeyDictionary[Dialect, dict[object, _Compiled]]] = WeakKeyDictionary()


class Executor:
    """Runs the statements above on a connection, for one operation."""

    def __init__(self, connection: Connection) -> None:
        self.dialect = connection.dialect
        self._connection = connection
        self._cursor = connection.connection.cursor
        events = connection.dispatch
        # If neither an event nor the log shows statements, they skip `exec_driver_sql`: an append takes a fifth less time.
        self._is_watched = bool(
            events.before_cursor_execute
            or events.after_cursor_execute
            or events.begin
            or self.dialect.dispatch.handle_error
            or connection.engine.logger.isEnabledFor(logging.INFO)
        )
        self._schemas = connection.get_execution_options().get("schema_translate_map")
        self._compiled = _compiled.setdefault(self.dialect, {})

    def execute(self, statement: sa.ClauseElement, **values: object) -> Sequence[Any]:
        """Run a statement, and return its rows."""
        text, names, constants, is_positional = self._compile(statement)
        if constants:
            values = {**constants, **values}
        return self._run(text, tuple([values[name] for name in names]) if is_positional else values)

    def execute_one_of(self, statements: Mapping[str, sa.ClauseElement], **values: object) -> Sequence[Any]:
        """Run the statement for this dialect, and return its rows."""
        return self.execute(statements[self.dialect.name], **values)

    def texts(self, values: Iterable[str]) -> object:
        """Return the parameter for a list of texts."""
        return compact(list(values)) if self.dialect.name == "sqlite" else list(values)

    def execute_many(self, statement: sa.ClauseElement, rows: Sequence[tuple[object, ...]]) -> None:
        """Run a statement for each row, which has the parameters in order: an insert's are the table's columns."""
        if not rows:
            return
        text, names, _, is_positional = self._compile(statement)
        parameters: list[Any] = list(rows) if is_positional else [dict(zip(names, row, strict=True)) for row in rows]
        self._run(text, parameters[0] if len(parameters) == 1 else parameters)

    def _run(self, text: str, parameters: Any) -> Sequence[Any]:
        if self._is_watched:
            result = self._connection.exec_driver_sql(text, parameters)
            return result.all() if result.returns_rows else ()
        cursor = self._cursor()
        try:
            if isinstance(parameters, list):
                cursor.executemany(text, parameters)
                return ()
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else ()
        finally:
            cursor.close()  # a garbage collector that found an open cursor would wait for its connection's lock

    def _compile(self, statement: sa.ClauseElement) -> _Compiled:
        schemas = self._schemas
        key = (statement, *sorted(schemas.items(), key=repr)) if schemas else statement
        if (found := self._compiled.get(key)) is None:
            options: dict[str, Any] = {"schema_translate_map": schemas, "render_schema_translate": bool(schemas)}
            compiled = cast(SQLCompiler, statement.compile(dialect=self.dialect, **options))
            constants = {name: value for name, value in compiled.params.items() if value is not None}
            names = compiled.positiontup or tuple(compiled.params)
            found = self._compiled[key] = _Compiled(compiled.string, names, constants, compiled.positiontup is not None)
        return found
