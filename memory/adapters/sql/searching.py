"""Finding conversations: a plan of index look-ups becomes SQL, driven from whichever side is the smaller.

Two ways lead to a page. *Driven*: the look-up with the fewest matches is read whole, and its conversations are sorted; its cost
grows with the matches. *Walked*: conversations are read in the order asked for, and each is probed; its cost grows with the
misses. Counting a look-up's matches, up to a limit, tells which to take; a walk that meets too few gives up and is driven.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    ScalarSelect,
    Select,
    and_,
    exists,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from memory.adapters.sql.statements import RECORD_COLUMNS, not_expired
from memory.adapters.sql.tables import conversations, entries
from memory.domain.criteria import FieldCompares
from memory.port.index import Every, KeyBetween, KeyIn, Lookup, Plan, Some, Unless
from memory.port.paging import Order, Place

_c, _e = conversations.c, entries.c
_COMPARE: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_DRIVEN_AT_MOST: Final = 2_000
"""Matches that are sooner sorted than walked around: 2 % of 100,000, where a page of 50 costs about the same either way."""

_WALKED_AT_MOST: Final = 4_000
"""Conversations that a walk looks at before it gives up."""

_PARTS_AT_MOST: Final = 400
"""Parts of a plan that go into one statement: sqlite joins 500 SELECTs at most, and nests an expression 1,000 deep."""

_DEPTH_AT_MOST: Final = 24
"""Levels of a plan that go into one statement: at 36 sqlite's parser was seen to overflow its stack of 100 entries."""

_KEYS_AT_MOST: Final = 10_000
"""Keys in a plan that go into one statement, twice: sqlite takes 32,766 parameters, PostgreSQL 65,535."""

Columns: TypeAlias = Sequence[ColumnElement[Any]]
Rows: TypeAlias = Sequence[Row[tuple[object, ...]]]


@dataclass(frozen=True, slots=True)
class _Drive:
    """Look-ups that together have every match, and what is left to be asked of each."""

    lookups: tuple[Lookup, ...]
    rest: Plan


class Search:
    """One plan, on one connection, in one namespace, at one moment."""

    def __init__(self, connection: Connection, namespace: str, plan: Plan, now: int) -> None:
        self._connection = connection
        self._namespace = namespace
        self._plan = plan
        self._not_expired = not_expired(now)

    def page(self, order: Order, after: Place | None, limit: int) -> Rows:
        """Return at most so many records after a place, in order."""
        drive, matches = self._best_drive()
        if drive is None:
            return self._walked(order, after, None, limit)
        if matches > _DRIVEN_AT_MOST:
            until = self._place_beyond(order, after)
            rows = self._walked(order, after, until, limit)
            if until is None or len(rows) == limit:
                return rows
        return self._driven(drive, order, after, limit)

    def count(self) -> int:
        """Return how many conversations there are."""
        drive, matches = self._best_drive()
        if drive is not None and matches <= _DRIVEN_AT_MOST:
            where = self._are_held(drive)
        else:
            among = self._holds(self._plan, lambda lookup: _c.key.in_(self._holders((lookup,))))
            where = and_(_c.namespace == self._namespace, self._not_expired, among)
        return self._connection.execute(select(func.count()).select_from(conversations).where(where)).scalar_one()

    def _best_drive(self) -> tuple[_Drive | None, int]:
        """Return the drive with the fewest matches, and how many (one more than the limit stands for all that are more)."""
        drives = _drives(self._plan)
        if not drives:
            return None, 0
        counts = self._connection.execute(select(*map(self._matches, drives))).one()
        return min(zip(drives, counts, strict=True), key=itemgetter(1))

    def _matches(self, drive: _Drive) -> ScalarSelect[int]:
        limited = self._holders(drive.lookups).limit(_DRIVEN_AT_MOST + 1).subquery()
        return select(func.count()).select_from(limited).scalar_subquery()

    def _place_beyond(self, order: Order, after: Place | None) -> Place | None:
        """Return the place where a walk is to give up; None if it meets the end before."""
        columns = _indexed(order)
        beyond = select(*columns).where(_c.namespace == self._namespace, _is_after(columns, order, after))
        row = self._connection.execute(_sorted(beyond, columns, order).offset(_WALKED_AT_MOST).limit(1)).first()
        return None if row is None else cast(Place, tuple(row))

    def _walked(self, order: Order, after: Place | None, until: Place | None, limit: int) -> Rows:
        columns = _indexed(order)
        found = select(*RECORD_COLUMNS).where(
            _c.namespace == self._namespace,
            self._not_expired,
            self._holds(self._plan),
            _is_after(columns, order, after),
            true() if until is None else not_(_is_after(columns, order, until)),
        )
        return self._connection.execute(_sorted(found, columns, order).limit(limit)).all()

    def _driven(self, drive: _Drive, order: Order, after: Place | None, limit: int) -> Rows:
        # In a function a column has no index: else a database may walk one, and look each conversation up among the matches.
        columns = [func.coalesce(column, null()) for column in _indexed(order)]
        found = select(*RECORD_COLUMNS).where(self._are_held(drive), _is_after(columns, order, after))
        return self._connection.execute(_sorted(found, columns, order).limit(limit)).all()

    def _are_held(self, drive: _Drive) -> ColumnElement[bool]:
        """Hold for what a drive finds. No word of the namespace, which the entries have: it would suggest another index."""
        return and_(_c.key.in_(self._holders(drive.lookups)), self._not_expired, self._holds(drive.rest))

    def _holders(self, lookups: tuple[Lookup, ...]) -> Select[tuple[int]] | CompoundSelect[tuple[int]]:
        """Return the keys of the conversations that one of these look-ups finds, through the index by value."""
        found = [
            select(_e.conversation_key).where(_e.namespace == self._namespace, _finds(lookup)) for lookup in lookups
        ]
        return found[0] if len(found) == 1 else union_all(*found)

    def _holds(self, plan: Plan, finds: "Callable[[Lookup], ColumnElement[bool]] | None" = None) -> ColumnElement[bool]:
        """Return the condition that a plan makes; a look-up probes the conversation's own entries, unless told otherwise."""
        match plan:
            case KeyIn() | KeyBetween():
                return finds(plan) if finds else exists().where(_e.conversation_key == _c.key, _finds(plan))
            case FieldCompares():
                return _COMPARE[plan.operator](_c[plan.field], plan.value)
            case Unless():
                return not_(self._holds(plan.part, finds))
            case Every():
                return and_(true(), *[self._holds(part, finds) for part in plan.parts])
            case Some():
                return or_(false(), *[self._holds(part, finds) for part in plan.parts])


def fitting(plan: Plan, exact: bool) -> tuple[Plan, bool]:  # noqa: FBT001  # as `memory.port.index.plan` returns them
    """Return a plan that one statement can hold: where this one is too large, every conversation, to be looked at one by one."""
    parts, keys, depth = _size(plan)
    fits = parts <= _PARTS_AT_MOST and keys <= _KEYS_AT_MOST and depth <= _DEPTH_AT_MOST
    return (plan, exact) if fits else (Every(), False)


def _size(plan: Plan) -> tuple[int, int, int]:
    """Return how many parts a plan has, how many keys, and how many levels."""
    match plan:
        case Every(inner) | Some(inner):
            sizes = [_size(part) for part in inner]
        case Unless(part):
            sizes = [_size(part)]
        case KeyIn(_, keys_in):
            return 1, len(keys_in), 1
        case _:
            return 1, 1, 1
    parts, keys, depths = zip(*sizes, strict=True) if sizes else ((), (), ())
    return 1 + sum(parts), sum(keys), 1 + max(depths, default=0)


def _drives(plan: Plan) -> list[_Drive]:
    """Return the ways to drive a plan: each conjunct that is a look-up, or a choice between look-ups."""
    conjuncts = plan.parts if isinstance(plan, Every) else (plan,)
    drives = []
    for place, part in enumerate(conjuncts):
        lookups = part.parts if isinstance(part, Some) else (part,)
        if lookups and all(isinstance(lookup, KeyIn | KeyBetween) for lookup in lookups):
            rest = conjuncts[:place] + conjuncts[place + 1 :]
            drives.append(_Drive(cast(tuple[Lookup, ...], lookups), Every(rest)))
    return drives


def _finds(lookup: Lookup) -> ColumnElement[bool]:
    match lookup:
        case KeyIn(path, keys):
            return and_(_e.path == path, _e.value == keys[0] if len(keys) == 1 else _e.value.in_(keys))
        case KeyBetween(path, low, high):
            return and_(_e.path == path, _e.value >= low, _e.value < high)


def _indexed(order: Order) -> Columns:
    return [_c.id] if order.field == "id" else [_c[order.field], _c.id]


def _sorted(found: Select[Any], columns: Columns, order: Order) -> Select[Any]:
    return found.order_by(*[column.desc() if order.descending else column.asc() for column in columns])


def _is_after(columns: Columns, order: Order, place: Place | None) -> ColumnElement[bool]:
    if place is None:
        return true()
    stands, given = tuple_(*columns), tuple_(*map(literal, place))
    return stands < given if order.descending else stands > given
