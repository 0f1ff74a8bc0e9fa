"""Searching for conversations: the primitives of the planner (memory/port/planner.py) as SQL statements."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from memory.adapters.sql.statements import RECORD_COLUMNS, counted, not_expired, record_of
from memory.adapters.sql.tables import conversations, entries
from memory.domain.criteria import Criterion, FieldCompares
from memory.domain.records import ConversationRecord
from memory.port.index import Every, KeyBetween, KeyIn, Lookup, Plan, Some, Unless, plan
from memory.port.paging import Order, Place
from memory.port.planner import Drive, Search

_c, _e, _placed = conversations.c, entries.c, entries.alias("placed")
_PARTS_AT_MOST: Final = 400
"""The parts of a plan in one statement: sqlite joins at most 500 SELECTs, and nests expressions at most 1,000 deep."""

_DEPTH_AT_MOST: Final = 24
"""The levels of a plan in one statement: at 36, sqlite's parser overflowed its stack of 100 entries."""

_KEYS_AT_MOST: Final = 10_000
"""The keys of a plan in one statement, which has them twice: sqlite takes 32,766 parameters, PostgreSQL 65,535."""

_LARGEST_PAGE: Final = 1_000
"""The most records that one statement reads, unless the first page needs more."""

Columns: TypeAlias = Sequence[sa.ColumnElement[Any]]
Read: TypeAlias = Callable[[Callable[[sa.Connection], Any]], Any]


class SqlSearch(Search):
    """Searches one namespace by one criterion. Each primitive runs one statement, or one for each page, on its own connection."""

    sorts = True
    walk_limit = 2_000

    def __init__(self, read: Read, namespace: str, criterion: Criterion, now: int) -> None:
        planned, exact = plan(criterion)
        # A plan too large for one statement becomes a walk past every conversation, checked one by one.
        self.plan, self.exact = (planned, exact) if _fits(planned) else (Every(), False)
        self._read = read
        self._namespace = namespace
        self._now = now
        self._not_expired = not_expired(now)
        self._large: set[Drive] = set()  # drives that find more than the limit of `estimate`

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        (source, belongs), columns = self._along_index(order), _columns(order)
        found = sa.select(*RECORD_COLUMNS).select_from(source).where(belongs, self._not_expired, self._holds(self.plan))
        ends: Sequence[Any] = ()
        if most is not None:
            beyond = sa.select(*columns).select_from(source).where(belongs, _is_after(order, columns, after))
            ends = self._rows(_in_order(beyond, order, columns).offset(most).limit(1))
        for end in ends:
            found = found.where(sa.not_(_is_beyond(order, columns, end)))

        def page(after: Place | None, _: int) -> sa.Select[Any]:
            return found.where(_is_after(order, columns, after))

        yield from self._pages(page, order, columns, after, wanted)
        if ends:
            yield None

    def estimate(self, drives: Sequence[Drive], limit: int) -> Sequence[int]:
        found = [self._holders(drive.lookups).limit(limit + 1).subquery() for drive in drives]
        counts = [sa.select(sa.func.count()).select_from(entries_found).scalar_subquery() for entries_found in found]
        (row,) = self._rows(sa.select(*counts))
        self._large = {drive for drive, found_entries in zip(drives, row, strict=True) if found_entries > limit}
        return tuple(row)

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        source, key, holds = self._driven(drive)
        if order.path:
            source = source.join(_placed, _placed.c.conversation_key == _c.key)
            holds = sa.and_(holds, _placed.c.path == order.index_path)
        # As in `_driven`: otherwise a database may scan an index by these columns, and look up each conversation in the matches.
        columns = [sa.func.coalesce(column, sa.null()) for column in _columns(order)]

        def page(after: Place | None, limit: int) -> sa.Select[Any]:
            found = sa.select(*RECORD_COLUMNS).select_from(source)
            matching = sa.and_(holds, _is_after(order, columns, after))
            if drive in self._large and _finds_by_key(drive):
                # Any `limit` matches bound the page: what comes after the last of them need not be sorted. Matches with the
                # highest keys, or the lowest, are usually close to the page, and they are at one end of the index.
                some = sa.select(columns[0].label("place")).select_from(source).where(matching)
                place = _in_order(some, order, [key]).limit(limit).subquery().c.place
                last = sa.select((sa.func.min if order.descending else sa.func.max)(place)).scalar_subquery()
                found = found.where(columns[0] >= last if order.descending else columns[0] <= last)
            return found.where(matching)

        return self._pages(page, order, columns, after, wanted)

    def total(self) -> int:
        ((total,),) = self._rows(counted(self._namespace, self._now))
        return int(total)

    def count(self, drive: Drive | None, matches: int) -> int:  # noqa: ARG002  # the best drive is best for any number
        if drive is None:
            source: sa.FromClause = conversations
            holds = sa.and_(_c.namespace == self._namespace, self._not_expired, self._holds(self.plan))
        else:
            source, _, holds = self._driven(drive)
        ((count,),) = self._rows(sa.select(sa.func.count()).select_from(source).where(holds))
        return int(count)

    def _rows(self, statement: sa.Select[Any]) -> Sequence[Any]:
        rows: Sequence[Any] = self._read(lambda connection: connection.execute(statement).all())
        return rows

    def _pages(
        self,
        page: Callable[[Place | None, int], sa.Select[Any]],
        order: Order,
        columns: Columns,
        after: Place | None,
        limit: int,
    ) -> Iterator[ConversationRecord]:
        """Yield the records that a statement for each page finds. Pages grow, because the first is usually enough."""
        while True:
            statement = _in_order(page(after, limit), order, columns).limit(limit)
            records = [record_of(row) for row in self._rows(statement)]
            yield from records
            if len(records) < limit:
                return
            after, limit = order.place(records[-1]), min(2 * limit, max(limit, _LARGEST_PAGE))

    def _along_index(self, order: Order) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
        """Return the tables that an order reads, and the condition for conversations that belong to it."""
        if not order.path:
            return conversations, _c.namespace == self._namespace
        placed = _placed.join(conversations, _c.key == _placed.c.conversation_key)
        return placed, sa.and_(_placed.c.namespace == self._namespace, _placed.c.path == order.index_path)

    def _driven(self, drive: Drive) -> tuple[sa.FromClause, sa.ColumnElement[int], sa.ColumnElement[bool]]:
        """Return the tables that a drive reads, the keys that it finds, and the condition for matches.

        The condition does not name the namespace, which the entries have: it would suggest another index.
        """
        found = self._holders(drive.lookups)
        if not _finds_each_once(drive):
            found = sa.select(found.subquery().c.conversation_key).distinct()
        holders = found.subquery("holders")
        key = holders.c.conversation_key
        # A column inside a function has no index: otherwise a database may scan all conversations, and look up the key of each.
        source = holders.join(conversations, _c.key == sa.func.coalesce(key, sa.null()))
        return source, key, sa.and_(self._not_expired, self._holds(drive.rest))

    def _holders(self, lookups: tuple[Lookup, ...]) -> sa.Select[tuple[int]] | sa.CompoundSelect[tuple[int]]:
        """Return the keys of the conversations that one of these look-ups finds, through the index by value.

        A conversation is repeated if several look-ups, or several elements of a list, find it.
        """
        keys = sa.select(_e.conversation_key).where(_e.namespace == self._namespace)
        found = [keys.where(_finds(lookup)) for lookup in lookups]
        return found[0] if len(found) == 1 else sa.union_all(*found)

    def _holds(self, plan: Plan) -> sa.ColumnElement[bool]:
        """Return the condition that a plan makes; a look-up probes the conversation's own entries."""
        match plan:
            case KeyIn() | KeyBetween():
                return sa.exists().where(_e.conversation_key == _c.key, _finds(plan))
            case FieldCompares():
                return _c[plan.field].bool_op("=" if plan.operator == "==" else plan.operator)(plan.value)
            case Unless():
                return sa.not_(self._holds(plan.part))
            case Every():
                return sa.and_(sa.true(), *[self._holds(part) for part in plan.parts])
            case Some():
                return sa.or_(sa.false(), *[self._holds(part) for part in plan.parts])


def _fits(plan: Plan) -> bool:
    depths, keys = zip(*_parts(plan, 1), strict=True)
    return len(depths) <= _PARTS_AT_MOST and max(depths) <= _DEPTH_AT_MOST and sum(keys) <= _KEYS_AT_MOST


def _parts(plan: Plan, depth: int) -> Iterator[tuple[int, int]]:
    """Yield the level of each part of a plan, and the number of its keys."""
    yield depth, len(plan.keys) if isinstance(plan, KeyIn) else 0
    for part in plan.parts if isinstance(plan, Every | Some) else (plan.part,) if isinstance(plan, Unless) else ():
        yield from _parts(part, depth + 1)


def _finds_each_once(drive: Drive) -> bool:
    """Whether no conversation is found twice: a path has one value, but a list has many elements."""
    one = drive.lookups[0]
    return len(drive.lookups) == 1 and (isinstance(one, KeyBetween) or len(one.keys) == 1)


def _finds_by_key(drive: Drive) -> bool:
    """Whether the index lists all matches in the order of their keys: those of one value at one path."""
    return _finds_each_once(drive) and isinstance(drive.lookups[0], KeyIn) and drive.rest == Every()


def _finds(lookup: Lookup) -> sa.ColumnElement[bool]:
    match lookup:
        case KeyIn(path, keys):
            return sa.and_(_e.path == path, _e.value == keys[0] if len(keys) == 1 else _e.value.in_(keys))
        case KeyBetween(path, low, high):
            return sa.and_(_e.path == path, _e.value >= low, _e.value < high)


def _columns(order: Order) -> Columns:
    if order.path:
        return [_placed.c.value, _c.id]
    return [_c.id] if order.field == "id" else [_c[order.field], _c.id]


def _in_order(found: sa.Select[Any], order: Order, columns: Columns) -> sa.Select[Any]:
    return found.order_by(*[column.desc() if order.descending else column.asc() for column in columns])


def _is_after(order: Order, columns: Columns, place: Place | None) -> sa.ColumnElement[bool]:
    if place is None:
        return sa.true()
    return _is_beyond(order, columns, (bytes.fromhex(str(place[0])), *place[1:]) if order.path else place)


def _is_beyond(order: Order, columns: Columns, end: Sequence[object]) -> sa.ColumnElement[bool]:
    compare = operator.lt if order.descending else operator.gt
    beyond: sa.ColumnElement[bool] = compare(sa.tuple_(*columns), sa.tuple_(*map(sa.literal, end)))
    if order.path:  # the columns are of two tables: an index can begin only at the first of them
        return sa.and_(columns[0] <= end[0] if order.descending else columns[0] >= end[0], beyond)
    return beyond
