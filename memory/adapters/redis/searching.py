"""Finding conversations: what the planner (`memory.port.planner`) asks of Redis.

A criterion becomes the text of one query to the index, made of field names, numbers and tokens (`tokens.py`) and of nothing
else. The orders are sorted sets: a page without a criterion is a range of one of them (walk.lua). With a criterion, a page by
time asks the index about one range of times after the other. The id is not in the index: criteria on it are checked by reading.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, cast

from memory.adapters.redis import records
from memory.adapters.redis.index import Index, Row
from memory.adapters.redis.keys import CONVERSATION, Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.criteria import Criterion, Exists, FieldCompares, Operator
from memory.domain.records import ConversationRecord
from memory.port import planner
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless, named_ids, plan
from memory.port.paging import Order, Place

_DEEPEST: Final = 40
"""Levels of a plan that go into a query's text, as 2.5 levels of parentheses each: above 120 the server's parser gives up."""

_MOST_TOKENS: Final = 20_000
"""Tokens in a query's text. Beyond that, reading conversations is cheaper."""

_EXACT: Final = 2**53
_FURTHEST: Final = 2**70  # beyond any number that is stored; Python's integers go on
_NOTHING: Final = "@entries:{none}"  # no token is as short as that

_AT_ONCE: Final = 500  # conversations that one answer has at most: some 3 ms of the server's time
_PASSED_FIRST: Final = 4  # times the page: the conversations among which a page by time is first looked for
_WIDER: Final = 8
_NARROWER: Final = 4
_WIDEST: Final = 20_000
_COUNTED: Final = 25_000  # conversations that one query counts among: some 5 ms of the server's time
_FEW: Final = 64  # conversations that are read together with the count of the matches
_OLDEST_FIRST: Final = Order("created_at", descending=False)
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


class Search(planner.Search):
    """One criterion, in one namespace, at one moment.

    The server intersects look-ups by itself, so every drive is the same query: the whole criterion.
    """

    def __init__(self, wire: Wire, index: Index, keys: Keys, *, namespace: str, criterion: Criterion, now: int) -> None:
        self._wire, self._index, self._keys, self._namespace, self._now = wire, index, keys, namespace, now
        self.plan, exactly = plan(criterion)
        self._ids = named_ids(self.plan)
        self._translation = Translation(Tokens(namespace))
        condition = self._translation.of(self.plan)
        self._text = condition.text
        self._query = f"{self._translation.all} {condition.text} -@expires_at:[-inf {now}]"
        self._exactly = self.exact = exactly and condition.exact
        self._rows: list[Row] | None = None  # all that match, if they are few

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        if order.path or (self._text and self._number <= self.drive_limit) or self._ids is not None:
            return self._driven(order, after, max(wanted, self.drive_limit))
        if self._text and order.field != "id":
            return self._by_time(order, after, wanted)
        return self._passed(order, after, wanted, most)

    def estimate(self, drives: Sequence[planner.Drive], limit: int) -> Sequence[int]:  # noqa: ARG002  # it is `drive_limit`
        return [self._number] * len(drives)

    def drive(
        self,
        drive: planner.Drive | None,  # noqa: ARG002  # see the class
        order: Order,
        after: Place | None,  # noqa: ARG002  # the planner sorts
        wanted: int,  # noqa: ARG002
    ) -> Iterator[ConversationRecord]:
        self.exact = self._exactly
        if self._ids is not None:
            return self._records(self._of_ids(self._ids))
        if self._rows is not None:
            return self._records(self._rows)
        having = self._translation.of(plan(Exists(order.path))[0]).text if order.path else ""
        return self._records(self._index.hashes(f"{self._query} {having}"))

    def total(self) -> int:
        ids, expiries = (self._keys.order(self._namespace, field) for field in ("id", "expires_at"))
        commands = (("MULTI",), ("ZCARD", ids), ("ZCOUNT", expiries, "-inf", self._now), ("EXEC",))
        *_, (listed, expired) = map(self._wire.checked, self._wire.ask_all(*commands))
        return int(self._wire.checked(listed, ids)) - int(self._wire.checked(expired, expiries))

    def count(self, drive: planner.Drive | None, matches: int) -> int:
        """Count in parts, none of which keeps the server for long: by times of creation, which never change."""
        if drive is not None and matches <= self.drive_limit:
            return matches
        total, near = 0, "-inf"
        while near:
            condition, near = self._window(_OLDEST_FIRST, near, _COUNTED)
            total += self._index.count(f"{self._query} {condition}")
        return total

    @cached_property
    def _number(self) -> int:
        """How many match, up to one more than `drive_limit`. If they are few, they are read in the same round trip."""
        if self._ids is not None:
            return len(self._ids)
        rows, number = self._index.sample(self._query, _FEW, self.drive_limit + 1)
        if number <= _FEW:
            self._rows = rows
        return number

    def _driven(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches in order, so many at a time: memory is bounded, and all are read for each time."""
        while found := planner.nearest(self.drive(None, order, after, wanted), order.place, order, after, wanted):
            yield from found
            if len(found) < wanted:
                return
            after = order.place(found[-1])

    def _by_time(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches in an order by a time: for one range of times after the other, what the index finds there."""
        self.exact = self._exactly
        near = f"{after[0]}" if after else "+inf" if order.descending else "-inf"
        size, few = min(_PASSED_FIRST * wanted, _WIDEST), min(2 * wanted, _AT_ONCE)
        while near:
            condition, beyond = self._window(order, near, size)
            query = f"{self._query} {condition}"
            rows = self._index.some(query, few + 1)
            if len(rows) > few:
                if size > _AT_ONCE:
                    size = max(size // _NARROWER, _AT_ONCE)
                    continue
                rows = list(self._index.hashes(query))
            found = list(self._records(rows))
            yield from planner.nearest(found, order.place, order, after, len(found))
            near = beyond
            if len(found) < wanted:
                size = min(_WIDER * size, _WIDEST)

    def _window(self, order: Order, near: str, size: int) -> tuple[str, str]:
        """Return the condition for the next conversations of an order by time, and the bound to go on from, '' at the end."""
        far, *reverse = ("-inf", "REV") if order.descending else ("+inf",)
        key = self._keys.order(self._namespace, order.field)
        last = self._wire.ask_all(("ZRANGE", key, near, far, "BYSCORE", *reverse, "LIMIT", size - 1, 1, "WITHSCORES"))
        beyond = ""
        for _, score in self._wire.checked(last[0], key):
            far = f"{score:.0f}"
            beyond = f"({far}"
        low, high = (far, near) if order.descending else (near, far)
        return f"@{order.field}:[{low} {high}]", beyond

    def _passed(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        """Yield all conversations of an order, whether they match or not."""
        self.exact = self._exactly and not self._text
        key = self._keys.order(self._namespace, order.field)
        arguments = (self._keys.of_namespace(CONVERSATION, self._namespace), "DESC" if order.descending else "ASC")
        place: Sequence[Argument] = ("", "") if after is None else (0, *after)[-2:]
        size, passed = min(wanted, _AT_ONCE), 0
        while True:
            *place, rows = self._wire.read(_WALK, [key], [*arguments, *place, size])
            yield from self._records(((key.decode(), fields) for *fields, key in rows), are_listed=True)
            if not place[1]:
                return
            passed, size = passed + size, min(2 * size, _AT_ONCE)
            if most is not None and passed >= most:
                yield None
                return

    def _of_ids(self, ids: Sequence[str]) -> Iterator[Row]:
        keys = [self._keys.conversation(self._namespace, one) for one in ids]
        answers = self._wire.ask_all(*[("HMGET", key, *RECORD_FIELDS) for key in keys]) if keys else []
        return ((key, self._wire.checked(fields, key)) for key, fields in zip(keys, answers, strict=True))

    def _records(self, rows: Iterable[Row], *, are_listed: bool = False) -> Iterator[ConversationRecord]:
        """Yield the conversations that have not expired. A hash that is gone is an error only if it is listed in an order."""
        for key, fields in rows:
            if are_listed or any(fields):
                record = self._record(key, fields)
                if not are_listed and any(abs(time) >= _EXACT for time in record[-3:] if time):  # the index rounded it
                    record = self._record(key, self._wire.ask("HMGET", key, *RECORD_FIELDS))
                if not record.is_expired(self._now):
                    yield record

    def _record(self, key: str, fields: Sequence[bytes | None]) -> ConversationRecord:
        return records.conversation(self._keys, self._namespace, key, fields if any(fields) else ())
