"""Finding conversations: what the planner (`memory.port.planner`) asks of Redis.

A criterion becomes the text of one query to the index, made of field names, numbers and tokens (`tokens.py`) and of nothing
else. The orders are sorted sets: a page without a criterion is a range of one of them. With a criterion, a page by time asks the
index about one range of times after the other (walk.lua). The id is not in the index: criteria on it are checked by reading.
"""

import heapq
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple, cast

from memory.adapters.redis import records
from memory.adapters.redis.index import Index, Row
from memory.adapters.redis.keys import CONVERSATION, Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, RefusedError, Script, Wire
from memory.domain.criteria import AllOf, Criterion, Exists, FieldCompares, Operator
from memory.domain.records import ConversationRecord
from memory.port import planner
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless, plan
from memory.port.paging import Order, Place

_DEEPEST: Final = 40
"""Levels of a plan that go into a query's text, as 2.5 levels of parentheses each: above 120 the server's parser gives up."""

_MOST_TOKENS: Final = 20_000
"""Tokens in a query's text. Beyond that, reading conversations is cheaper."""

_EXACT: Final = 2**53
_FURTHEST: Final = 2**70  # beyond any number that is stored; Python's integers go on
_NOTHING: Final = "@entries:{none}"  # no token is as short as that

_AT_ONCE: Final = 500  # conversations that a script reads at most: some 3 ms of the server's time
_PASSED_FIRST: Final = 4  # times the page: the members that the first query of a walk passes
_WIDER: Final = 8
_NARROWER: Final = 4
_WIDEST: Final = 20_000
_COUNTED: Final = 25_000  # conversations that one query counts among: some 5 ms of the server's time
_FEW: Final = 64  # conversations that are read together with the count of the matches
_WALK: Final = Script("shared", "walk")


@dataclass(frozen=True, slots=True)
class Condition:
    """The text of a condition; an empty text matches every conversation.

    Attributes:
        exact: the condition matches exactly what was planned; if false, it matches more.
        negates: there is a negation in it.
        unless: if all of it is a negation, the text of what is negated.
    """

    text: str
    exact: bool = True
    negates: bool = False
    unless: str = ""


_EVERYTHING: Final = Condition("")
_TOO_MUCH: Final = Condition("", exact=False)


class Translation:
    """Translates a plan into the language of queries."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._tokens_left = _MOST_TOKENS
        self.all: Final = f"@entries:{{{tokens.everything}}}"

    def of(self, plan: Plan, depth: int = 0) -> Condition:
        """Return the condition of a plan, or one that matches more conversations."""
        if depth > _DEEPEST:
            return _TOO_MUCH
        match plan:
            case KeyIn():
                return self._one_of(self._tokens.equal(plan.path, plan.keys))
            case KeyBetween():
                tokens, exact = self._tokens.between(plan)
                return self._one_of(tokens, exact=exact)
            case FieldCompares():
                return _compares(plan)
            case Unless():
                part = self.of(plan.part, depth + 1)
                return self._unless(part.text or self.all) if part.exact else _TOO_MUCH
            case Every():
                return self._every([self.of(part, depth + 1) for part in plan.parts])
            case Some():
                return self._some([self.of(part, depth + 1) for part in plan.parts])

    def _one_of(self, tokens: Sequence[str], *, exact: bool = True) -> Condition:
        if not tokens:
            return Condition(_NOTHING)
        self._tokens_left -= len(tokens)
        return Condition(f"@entries:{{{'|'.join(tokens)}}}", exact) if self._tokens_left >= 0 else _TOO_MUCH

    def _every(self, parts: Sequence[Condition]) -> Condition:
        texts = [part.text for part in parts if part.text]
        text = f"({' '.join(texts)})" if len(texts) > 1 else "".join(texts)
        return Condition(text, all(part.exact for part in parts), any(part.negates for part in parts))

    def _some(self, parts: Sequence[Condition]) -> Condition:
        exact = all(part.exact for part in parts)
        if not all(part.text for part in parts):
            return Condition("", exact)
        if any(part.negates for part in parts):
            # RediSearch 2.10 finds the wrong ones by an intersection with a negation in a union in an intersection: De Morgan.
            none = " ".join(part.unless or f"-({part.text})" for part in parts)
            return replace(self._unless(f"({self.all} {none})"), exact=exact)
        return Condition(f"({' | '.join(part.text for part in parts)})" if parts else _NOTHING, exact)

    def _unless(self, text: str) -> Condition:
        return Condition(f"({self.all} -({text}))", negates=True, unless=f"({text})")


def _compares(compares: FieldCompares) -> Condition:
    field, operator, value = compares.field, compares.operator, compares.value
    if isinstance(value, str):
        return _TOO_MUCH  # the id, which is not in the index
    exact = abs(value) < _EXACT
    if not exact:  # a larger number may be the same double as its neighbours, so the bound itself is in question
        operator = cast(Operator, operator[0] + "=")
    bound = min(max(value, -_FURTHEST), _FURTHEST)
    low, high = {
        "==": (f"{bound}", f"{bound}"),
        "<": ("-inf", f"({bound}"),
        "<=": ("-inf", f"{bound}"),
        ">": (f"({bound}", "+inf"),
        ">=": (f"{bound}", "+inf"),
    }[operator]
    return Condition(f"@{field}:[{low} {high}]", exact)


class _Point(NamedTuple):
    """A member of an order: its score and its id. Two empty texts mean the beginning of the order, or its end."""

    score: str | int
    id: str


_END: Final = _Point("", "")


class Search(planner.Search):
    """One criterion, in one namespace, at one moment.

    The server intersects look-ups by itself, so every drive is the same query: the whole criterion.
    """

    def __init__(self, wire: Wire, index: Index, keys: Keys, *, namespace: str, criterion: Criterion, now: int) -> None:
        self._wire, self._index, self._keys, self._namespace, self._now = wire, index, keys, namespace, now
        self._criterion = criterion
        self.plan, exactly = plan(criterion)
        translation = Translation(Tokens(namespace))
        condition = translation.of(self.plan)
        self._text = condition.text
        self._query = f"{translation.all} {condition.text} -@expires_at:[-inf {now}]"
        self._exactly = self.exact = exactly and condition.exact
        self._found: int | None = None  # how many match, as far as they were counted
        self._rows: list[Row] | None = None  # all that match, if they are few

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        if (ids := _named(self.plan)) is not None:
            yield from self._of_ids(ids, order, after)
        elif order.path:
            yield from self._by_path(order, after, wanted)
        elif self._text and order.field != "id":
            yield from self._by_time(order, after, wanted)
        else:
            yield from self._passed(order, after, wanted, most)

    def estimate(self, drives: Sequence[planner.Drive], limit: int) -> Sequence[int]:
        return [self._count_some(limit)] * len(drives)

    def drive(
        self,
        drive: planner.Drive | None,  # noqa: ARG002  # see the class
        order: Order,  # noqa: ARG002  # the planner sorts
        after: Place | None,  # noqa: ARG002
        wanted: int,  # noqa: ARG002
    ) -> Iterator[ConversationRecord]:
        self.exact = self._exactly
        for key, fields in self._index.hashes(self._query) if self._rows is None else self._rows:
            if any(fields):  # it may be gone since it was found
                yield records.conversation(self._keys, self._namespace, key, fields)

    def total(self) -> int:
        ids, expiries = (self._keys.order(self._namespace, field) for field in ("id", "expires_at"))
        commands = (("MULTI",), ("ZCARD", ids), ("ZCOUNT", expiries, "-inf", self._now), ("EXEC",))
        *_, (listed, expired) = map(self._wire.checked, self._wire.ask_all(*commands))
        return int(self._wire.checked(listed, ids)) - int(self._wire.checked(expired, expiries))

    def count(self, drive: planner.Drive | None, matches: int) -> int:
        """Count in parts, none of which keeps the server for long: by times of creation, which never change."""
        if drive is not None and matches <= self.drive_limit:
            return matches
        order = self._keys.order(self._namespace, "created_at")
        ranks = range(_COUNTED, self._wire.ask("ZCARD", order), _COUNTED)
        found = self._wire.ask_all(*[("ZRANGE", order, rank, rank, "WITHSCORES") for rank in ranks]) if ranks else []
        bounds = sorted({f"{score:.0f}" for one in found for _, score in self._wire.checked(one)}, key=int)
        edges = ["-inf", *(f"({bound}" for bound in bounds), "+inf"]
        parts = (f"@created_at:[{low.removeprefix('(')} {high}]" for low, high in pairwise(edges))
        return sum(self._index.count(f"{self._query} {part}") for part in parts)

    def _passed(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        """Yield all conversations of an order, whether they match or not."""
        self.exact = self._exactly and not self._text
        place, size, passed = _point(order, after), min(wanted, _AT_ONCE), 0
        while True:
            _, _, place, found = self._read(order, place, size)
            yield from (one for one in found if self._is_present(one))
            passed, size = passed + size, min(2 * size, _AT_ONCE)
            if place == _END:
                return
            if most is not None and passed >= most:
                yield None
                return

    def _by_time(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches in an order by a time: for one range of times after the other, what the index finds there."""
        place, size = _point(order, after), _PASSED_FIRST * wanted
        most = min(max(size, _AT_ONCE // 2), _AT_ONCE)
        while True:
            query = (self._index.name, self._query, order.field, most, self._index.milliseconds)
            kind, size, end, found = self._read(order, place, size, query)
            if kind == "too many":
                size //= _NARROWER
                continue
            self.exact = self._exactly and kind == "matched"
            yield from self._between(found, order, place, end)
            if end == _END:
                return
            place = end
            if len(found) < wanted:
                if self._count_some(self.drive_limit) <= self.drive_limit:
                    yield from self._between(list(self.drive(None, order, after, wanted)), order, place, _END)
                    return
                size = min(_WIDER * size, _WIDEST)

    def _count_some(self, limit: int) -> int:
        """Count the matches up to ``limit + 1``; if they are few, read them in the same round trip."""
        if self._found is None:
            rows, self._found = self._index.sample(self._query, _FEW, limit + 1)
            if self._found < _FEW:
                self._rows = rows
        return self._found

    def _between(
        self, found: list[ConversationRecord], order: Order, first: _Point, last: _Point
    ) -> list[ConversationRecord]:
        """Return what is beyond the first point, up to the last one, in order: a range of times may find more."""

        def rank(point: _Point) -> tuple[float, str]:  # as the sorted set has it: scores are doubles
            return float(point.score), point.id

        placed = [(rank(_point(order, order.place(one))), one) for one in found]
        if first != _END:
            beyond = operator.lt if order.descending else operator.gt
            placed = [each for each in placed if beyond(each[0], rank(first))]
        if last != _END:
            within = operator.ge if order.descending else operator.le
            placed = [each for each in placed if within(each[0], rank(last))]
        placed.sort(key=operator.itemgetter(0), reverse=order.descending)
        return [one for _, one in placed if self._is_present(one)]

    def _is_present(self, record: ConversationRecord) -> bool:
        return record.expires_at is None or record.expires_at > self._now

    def _by_path(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches in an order by a metadata path: of all that have the path, so many at a time."""
        having = AllOf((self._criterion, Exists(order.path)))
        search = Search(self._wire, self._index, self._keys, namespace=self._namespace, criterion=having, now=self._now)
        while True:
            found = _nearest(search.drive(None, order, after, wanted), order, after, wanted)
            self.exact = search.exact
            yield from found
            if len(found) < wanted:
                return
            after = order.place(found[-1])

    def _of_ids(self, ids: Sequence[str], order: Order, after: Place | None) -> list[ConversationRecord]:
        self.exact = False
        keys = [self._keys.conversation(self._namespace, one) for one in ids]
        answers = self._wire.ask_all(*[("HMGET", key, *RECORD_FIELDS) for key in keys]) if keys else []
        read = [(key, self._wire.checked(fields, key)) for key, fields in zip(keys, answers, strict=True)]
        found = [records.conversation(self._keys, self._namespace, key, fields) for key, fields in read if any(fields)]
        present = (one for one in found if self._is_present(one))
        return _nearest(present, order, after, len(found))

    def _read(
        self, order: Order, place: _Point, size: int, query: tuple[Argument, ...] = ()
    ) -> tuple[str, int, _Point, list[ConversationRecord]]:
        """Return what walk.lua answers: the kind, how many members were passed, the last of them, and conversations."""
        key = self._keys.order(self._namespace, order.field)
        prefix = self._keys.of_namespace(CONVERSATION, self._namespace)
        direction = "DESC" if order.descending else "ASC"
        try:
            answer = self._wire.read(_WALK, [key], [prefix, direction, *place, size, *query])
        except RefusedError as error:
            raise self._index.explain(error.refusal) from error.refusal
        warning, kind, passed, score, last, rows = answer
        if warning:
            raise self._index.cut_short(warning)
        found = [
            records.conversation(self._keys, self._namespace, key.decode(), fields if any(fields) else ())
            for *fields, key in rows
        ]
        return kind.decode(), int(passed), _Point(score.decode(), last.decode()), found


def _point(order: Order, place: Place | None) -> _Point:
    if place is None:
        return _END
    return _Point(0 if order.field == "id" else cast(int, place[0]), place[-1])


def _nearest(
    found: Iterable[ConversationRecord], order: Order, after: Place | None, wanted: int
) -> list[ConversationRecord]:
    """Return the first conversations beyond a place, in order."""
    choose, beyond = (heapq.nlargest, operator.lt) if order.descending else (heapq.nsmallest, operator.gt)
    placed = ((place, one) for one in found if order.has(place := order.place(one)))
    rest = ((place, one) for place, one in placed if after is None or beyond(place, after))
    return [one for _, one in choose(wanted, rest, key=operator.itemgetter(0))]


def _named(plan: Plan) -> tuple[str, ...] | None:
    """Return the ids that a plan names, one of which every match has; None if it names none."""
    match plan:
        case FieldCompares(field="id", operator="==", value=str(value)):
            return (value,)
        case Every():
            named = [ids for part in plan.parts if (ids := _named(part)) is not None]
            return min(named, key=len, default=None)
        case Some():
            several = [_named(part) for part in plan.parts]
            return (
                None if None in several or not several else tuple({one: None for ids in several for one in ids or ()})
            )
        case _:
            return None
