"""Finding conversations: what the planner (`memory.port.planner`) asks of Redis.

A criterion becomes the text of one query to the index, made of field names, numbers and tokens (`tokens.py`) and of nothing
else. The id is not in the index: criteria on it are checked by reading. The orders are sorted sets: a page without a criterion
is a range of one of them (walk.lua). With a criterion, a page by time asks the index about one range of times after the other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias, cast

from memory.adapters.redis import records
from memory.adapters.redis.keys import CONVERSATION, Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.criteria import Criterion, Exists, FieldCompares, Operator
from memory.domain.records import ConversationRecord
from memory.errors import PersistenceError, StoreUnavailableError
from memory.port import planner
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless, named_ids, plan
from memory.port.paging import Order, Place

Row: TypeAlias = tuple[str, list[bytes | None]]
"""The key of a conversation's hash, and the fields of its record."""

Steps: TypeAlias = tuple[Argument, ...]

_EXACT: Final = 2**53
"""The index has numbers below this one exactly, and others as the nearest double."""

_DEEPEST: Final = 40
"""Levels of a plan that go into a query's text, as 2.5 levels of parentheses each: above 120 the server's parser gives up."""

_MOST_TOKENS: Final = 20_000
"""Tokens in a query's text. Beyond that, reading conversations is cheaper."""

_FURTHEST: Final = 2**70  # beyond any number that is stored; Python's integers go on
_NOTHING: Final = "@entries:{none}"  # no token is as short as that

_SHARE: Final = 0.8
_LOAD: Final[Steps] = ("LOAD", len(RECORD_FIELDS) + 1, "@__key", *(f"@{name}" for name in RECORD_FIELDS))
# LIMIT 0 0 does not say when its total was cut short.
_COUNT: Final[Steps] = ("GROUPBY", "0", "REDUCE", "COUNT", "0", "AS", "n")
_NAMES: Final = [name.encode() for name in RECORD_FIELDS]

_AT_ONCE: Final = 300  # conversations that one answer has at most: some 3 ms of the server's time
_WIDER: Final = 8
_NARROWER: Final = 4
_WIDEST: Final = 20_000  # conversations among which one query looks for a page by time
_COUNTED: Final = 25_000  # conversations that one query counts among: some 5 ms of the server's time
_FEW: Final = 64  # matches that are read before they are counted
_OLDEST_FIRST: Final = Order("created_at", descending=False)
_WALK: Final = Script("shared", "walk")


class Index:
    """The index of one store: each query is answered completely, or raises an error.

    Args:
        wire: the connections.
        keys: the names of keys.
        explain: returns our error for a search that the server refused.
    """

    def __init__(self, wire: Wire, keys: Keys, explain: Callable[[Exception], PersistenceError]) -> None:
        self._wire, self._name, self._explain = wire, keys.index, explain

    @property
    def milliseconds(self) -> int:
        """The time that the server may take for a query: most of what is left, so that it can still say that it gave up."""
        return max(1, round(1000 * _SHARE * self._wire.seconds_left))

    def count(self, query: str, limit: int | None = None) -> int:
        """Return how many conversations a query finds, at most ``limit``."""
        rows, _ = self._aggregate(query, *(() if limit is None else ("LIMIT", 0, limit)), *_COUNT)
        if rows and b"n" not in rows[0]:  # with ON_TIMEOUT fail, a time-out gives an empty row and no warning
            raise self._cut_short(b"")
        return int(rows[0][b"n"]) if rows else 0

    def some(self, query: str, limit: int) -> list[Row]:
        """Return at most so many of the conversations that a query finds, in no order."""
        rows, _ = self._aggregate(query, "LIMIT", 0, limit, *_LOAD)
        return list(map(_row, rows))

    def all(self, query: str) -> Iterator[Row]:
        """Yield each conversation that a query finds once, in no order."""
        # MAXIDLE: the server forgets the cursor of a query that nobody reads to its end.
        rows, cursor = self._aggregate(query, *_LOAD, "WITHCURSOR", "COUNT", _AT_ONCE, "MAXIDLE", self.milliseconds)
        seen: set[str] = set()
        while True:
            for key, fields in map(_row, rows):
                if key not in seen:  # one that is written meanwhile comes again
                    seen.add(key)
                    yield key, fields
            if not cursor:
                return
            rows, cursor = self._ask("FT.CURSOR", "READ", self._name, cursor)

    def _aggregate(self, query: str, *steps: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        return self._ask("FT.AGGREGATE", self._name, query, *steps, "TIMEOUT", self.milliseconds, "DIALECT", 2)

    def _ask(self, *command: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        """Return the rows of an answer, and the cursor to go on from: 0 if there is none."""
        (answer,) = self._wire.ask_all(command)
        if isinstance(answer, Exception):
            raise self._explain(answer) from answer
        result: Any
        result, cursor = answer if isinstance(answer, list) else (answer, 0)
        if result[b"warning"]:
            raise self._cut_short(b"; ".join(result[b"warning"]))
        return [row[b"extra_attributes"] for row in result[b"results"]], cursor

    def _cut_short(self, warning: bytes) -> StoreUnavailableError:
        said = warning.decode(errors="replace")
        return StoreUnavailableError(f"{self._name}: the server cut a query short, so its answer is incomplete: {said}")


def _row(found: Mapping[bytes, bytes]) -> Row:
    return found.get(b"__key", b"").decode(errors="replace"), list(map(found.get, _NAMES))


class Condition(NamedTuple):
    """The text of a condition, empty if every conversation meets it; and whether it matches exactly what was planned, or more."""

    text: str
    exact: bool = True


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
                return self._one_of(*self._tokens.between(plan))
            case FieldCompares():
                return _compares(plan)
            case Unless():
                part = self.of(plan.part, depth + 1)
                return Condition(self._unless(part.text or self.all)) if part.exact else _TOO_MUCH
            case Every():
                texts, exact = self._parts(plan.parts, depth)
                return Condition(f"({' '.join(filter(None, texts))})" if any(texts) else "", exact)
            case Some():
                texts, exact = self._parts(plan.parts, depth)
                if not texts or not all(texts):
                    return Condition("" if texts else _NOTHING, exact)
                if all(isinstance(part, KeyIn | KeyBetween | FieldCompares) for part in plan.parts):
                    return Condition(f"({' | '.join(texts)})", exact)
                # De Morgan: RediSearch 2.10 is wrong about an intersection with a negation in a union in an intersection.
                none = " ".join(f"-({text})" for text in texts)
                return Condition(self._unless(f"{self.all} {none}"), exact)

    def _parts(self, parts: Sequence[Plan], depth: int) -> tuple[list[str], bool]:
        conditions = [self.of(part, depth + 1) for part in parts]
        return [condition.text for condition in conditions], all(condition.exact for condition in conditions)

    def _one_of(self, tokens: Sequence[str], exact: bool = True) -> Condition:  # noqa: FBT001, FBT002  # as `between` returns it
        self._tokens_left -= len(tokens)
        if self._tokens_left < 0:
            return _TOO_MUCH
        return Condition(f"@entries:{{{'|'.join(tokens)}}}" if tokens else _NOTHING, exact)

    def _unless(self, text: str) -> str:
        return f"({self.all} -({text}))"


def _compares(compares: FieldCompares) -> Condition:
    field, operator, value = compares.field, compares.operator, compares.value
    if isinstance(value, str):
        return _TOO_MUCH  # the id
    exact = abs(value) < _EXACT
    if not exact:  # a larger number may be the same double as its neighbours, so the bound itself is in question
        operator = cast(Operator, operator[0] + "=")
    bound = min(max(value, -_FURTHEST), _FURTHEST)
    bounds = {
        "==": f"{bound} {bound}",
        "<": f"-inf ({bound}",
        "<=": f"-inf {bound}",
        ">": f"({bound} +inf",
        ">=": f"{bound} +inf",
    }
    return Condition(f"@{field}:[{bounds[operator]}]", exact)


class Search(planner.Search):
    """One criterion, in one namespace, at one moment.

    The server intersects look-ups by itself, so every drive is the same query: the whole criterion.
    """

    def __init__(self, wire: Wire, index: Index, keys: Keys, *, namespace: str, criterion: Criterion, now: int) -> None:
        self._wire, self._index, self._keys, self._namespace, self._now = wire, index, keys, namespace, now
        self.plan, exactly = plan(criterion)
        self._ids = named_ids(self.plan)
        self._translation = Translation(Tokens(namespace))
        self._text, is_exact = self._translation.of(self.plan)
        self._query = f"{self._translation.all} {self._text} -@expires_at:[-inf {now}]"
        self._exactly = self.exact = exactly and is_exact
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
            return self._records(self._of_ids(self._ids)) if self._ids else iter(())
        if self._rows is not None:
            return self._records(self._rows)
        having = self._translation.of(plan(Exists(order.path))[0]).text if order.path else ""
        return self._records(self._index.all(f"{self._query} {having}"))

    def total(self) -> int:
        ids, expiries = (self._keys.order(self._namespace, field) for field in ("id", "expires_at"))
        listed, expired = self._wire.at_once(("ZCARD", ids), ("ZCOUNT", expiries, "-inf", self._now))
        return int(listed) - int(expired)

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
        """How many match, up to one more than `drive_limit`. If they are few, they are read instead of counted."""
        if self._ids is not None:
            return len(self._ids)
        rows = self._index.some(self._query, _FEW + 1)
        if len(rows) > _FEW:
            return self._index.count(self._query, self.drive_limit + 1)
        self._rows = rows
        return len(rows)

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
        few = min(2 * wanted, _AT_ONCE)
        size = 2 * few
        while near:
            condition, beyond = self._window(order, near, size)
            query = f"{self._query} {condition}"
            rows = self._index.some(query, few + 1)
            if len(rows) > few:
                if size > few:
                    size = max(size // _NARROWER, few)
                    continue
                rows = list(self._index.all(query))  # so many have one and the same time
            found = list(self._records(rows))
            yield from planner.nearest(found, order.place, order, after, len(found))
            near = beyond
            if len(found) < wanted:
                size = min(_WIDER * size, _WIDEST)

    def _window(self, order: Order, near: str, size: int) -> tuple[str, str]:
        """Return the condition for the next conversations of an order by time, and the bound to go on from, '' at the end."""
        far, *reverse = ("-inf", "REV") if order.descending else ("+inf",)
        key = self._keys.order(self._namespace, order.field)
        beyond = ""
        for _, score in self._wire.ask(
            "ZRANGE", key, near, far, "BYSCORE", *reverse, "LIMIT", size - 1, 1, "WITHSCORES"
        ):
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
        answers = self._wire.ask_all(*[("HMGET", key, *RECORD_FIELDS) for key in keys])
        return ((key, self._wire.checked(fields, key)) for key, fields in zip(keys, answers, strict=True))

    def _records(self, rows: Iterable[Row], *, are_listed: bool = False) -> Iterator[ConversationRecord]:
        """Yield the conversations that have not expired. A hash that is gone is an error only if it is listed in an order."""
        for key, fields in rows:
            if not any(fields):
                if are_listed:
                    raise records.corrupt(key, records.LEFT_OVER)
                continue
            record = records.conversation(self._keys, self._namespace, key, fields)
            if not are_listed and any(abs(time) >= _EXACT for time in record[-3:] if time):  # the index rounded it
                exact = self._wire.ask("HMGET", key, *RECORD_FIELDS)
                record = records.conversation(self._keys, self._namespace, key, exact)
            if not record.is_expired(self._now):
                yield record
