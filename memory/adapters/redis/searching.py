"""Search: implements the operations that the planner (`memory.port.planner`) needs.

A criterion is translated to the text of one query to the index, which contains only field names, numbers and tokens
(`tokens.py`). The id is not indexed: criteria on it are checked after reading. Orders are sorted sets: a page without a criterion
is a range of one of them (walk.lua). A page by time with a criterion queries the index for successive ranges of times.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

from memory.adapters.redis import records
from memory.adapters.redis.keys import CONVERSATION, Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.criteria import Criterion, Exists, FieldCompares
from memory.domain.records import ConversationRecord
from memory.errors import PersistenceError, StoreUnavailableError
from memory.port import planner
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless, named_ids, plan
from memory.port.paging import Order, Place

Row: TypeAlias = tuple[str, list[bytes | None]]
"""The key of a conversation's hash, and the fields of its record."""

Steps: TypeAlias = tuple[Argument, ...]

_EXACT: Final = 2**53
"""Numbers below this one are indexed exactly, others as the nearest double."""

_DEEPEST: Final = 40
"""The depth up to which a plan is translated. A level needs 2.5 levels of parentheses, and the server's parser allows 120."""

_MOST_TOKENS: Final = 20_000
"""The maximum number of tokens in a query. If a query needs more, reading the conversations is cheaper."""

_LARGEST_BOUND: Final = 2**70  # larger than any stored number; bounds are clamped to it
_NOTHING: Final = "@entries:{none}"  # matches nothing, because all tokens are longer

_LOAD: Final[Steps] = ("LOAD", len(RECORD_FIELDS) + 1, "@__key", *(f"@{name}" for name in RECORD_FIELDS))
# COUNT is used because LIMIT 0 0 does not report that its total is incomplete.
_COUNT: Final[Steps] = ("GROUPBY", "0", "REDUCE", "COUNT", "0", "AS", "n")
_NAMES: Final = [name.encode() for name in RECORD_FIELDS]

_AT_ONCE: Final = 300  # the maximum number of conversations in a reply: about 3 ms of the server's time
_WIDER: Final = 8
_NARROWER: Final = 4
_WIDEST: Final = 20_000  # the maximum number of conversations that one query for a page by time searches
_COUNTED: Final = 25_000  # the number of conversations that one counting query searches: about 5 ms of server time
_FEW: Final = 64  # up to this number, matches are read instead of counted
_OLDEST_FIRST: Final = Order("created_at", descending=False)
_WALK: Final = Script("shared", "walk")


class Index:
    """The index of one store. A query returns its complete result or raises an error."""

    def __init__(self, wire: Wire, keys: Keys, explain: Callable[[Exception], PersistenceError]) -> None:
        self._wire, self._name, self._explain = wire, keys.index, explain

    @property
    def milliseconds(self) -> int:
        """The server's time limit for a query: 80 % of the remaining time, so that its timeout error arrives before ours."""
        return max(1, round(800 * self._wire.seconds_left))

    def count(self, query: str, limit: int | None = None) -> int:
        """Return the number of conversations that match a query, at most ``limit``."""
        rows, _ = self._aggregate(query, *(() if limit is None else ("LIMIT", 0, limit)), *_COUNT)
        if rows and b"n" not in rows[0]:  # with ON_TIMEOUT fail, a timeout returns an empty row without a warning
            raise self._cut_short(b"")
        return int(rows[0][b"n"]) if rows else 0

    def fetch(self, query: str, limit: int) -> list[Row]:
        """Return up to ``limit`` of the conversations that match a query, unordered."""
        rows, _ = self._aggregate(query, "LIMIT", 0, limit, *_LOAD)
        return list(map(_row, rows))

    def all(self, query: str) -> Iterator[Row]:
        """Yield each conversation that matches a query once, unordered."""
        # MAXIDLE makes the server delete a cursor that is not read to its end.
        rows, cursor = self._aggregate(query, *_LOAD, "WITHCURSOR", "COUNT", _AT_ONCE, "MAXIDLE", self.milliseconds)
        seen: set[str] = set()
        while True:
            for key, fields in map(_row, rows):
                if key not in seen:  # a conversation written during the query is returned twice
                    seen.add(key)
                    yield key, fields
            if not cursor:
                return
            rows, cursor = self._ask("FT.CURSOR", "READ", self._name, cursor)

    def _aggregate(self, query: str, *steps: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        return self._ask("FT.AGGREGATE", self._name, query, *steps, "TIMEOUT", self.milliseconds, "DIALECT", 2)

    def _ask(self, *command: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        """Return the rows of a reply, and the cursor for the next rows, or 0."""
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
        return StoreUnavailableError(f"{self._name}: the server returned an incomplete result of a query: {said}")


def _row(found: Mapping[bytes, bytes]) -> Row:
    return found.get(b"__key", b"").decode(errors="replace"), list(map(found.get, _NAMES))


class Condition(NamedTuple):
    """The text of a condition (empty: it matches everything), and whether it matches exactly the plan or a superset."""

    text: str
    exact: bool = True


_UNRESTRICTED: Final = Condition("", exact=False)


class Translation:
    """Translates a plan to RediSearch's query language."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._tokens_left = _MOST_TOKENS
        self.all: Final = f"@entries:{{{tokens.everything}}}"

    def of(self, plan: Plan, depth: int = 0) -> Condition:
        """Return a condition that matches the plan or, if not ``exact``, a superset."""
        if depth > _DEEPEST:
            return _UNRESTRICTED
        match plan:
            case KeyIn():
                return self._one_of(self._tokens.equal(plan.path, plan.keys))
            case KeyBetween():
                return self._one_of(*self._tokens.between(plan))
            case FieldCompares():
                return _compares(plan)
            case Unless():
                part = self.of(plan.part, depth + 1)
                return Condition(self._unless(part.text or self.all)) if part.exact else _UNRESTRICTED
            case Every():
                texts, exact = self._parts(plan.parts, depth)
                return Condition(f"({' '.join(filter(None, texts))})" if any(texts) else "", exact)
            case Some():
                texts, exact = self._parts(plan.parts, depth)
                if not texts or not all(texts):
                    return Condition("" if texts else _NOTHING, exact)
                if all(isinstance(part, KeyIn | KeyBetween | FieldCompares) for part in plan.parts):
                    return Condition(f"({' | '.join(texts)})", exact)
                # De Morgan, because RediSearch 2.10 evaluates a negation inside an intersection of a nested union wrongly.
                none = " ".join(f"-({text})" for text in texts)
                return Condition(self._unless(f"{self.all} {none}"), exact)

    def _parts(self, parts: Sequence[Plan], depth: int) -> tuple[list[str], bool]:
        conditions = [self.of(part, depth + 1) for part in parts]
        return [condition.text for condition in conditions], all(condition.exact for condition in conditions)

    def _one_of(self, tokens: Sequence[str], exact: bool = True) -> Condition:  # noqa: FBT001, FBT002  # as `between` returns it
        self._tokens_left -= len(tokens)
        if self._tokens_left < 0:
            return _UNRESTRICTED
        return Condition(f"@entries:{{{'|'.join(tokens)}}}" if tokens else _NOTHING, exact)

    def _unless(self, text: str) -> str:
        return f"({self.all} -({text}))"


def _compares(compares: FieldCompares) -> Condition:
    field, operator, value = compares.field, compares.operator, compares.value
    if isinstance(value, str):
        return _UNRESTRICTED  # the id is not indexed
    exact = abs(value) < _EXACT
    bound = min(max(value, -_LARGEST_BOUND), _LARGEST_BOUND)
    # A large number and its neighbours may be the same double, so the bound must be included.
    end = f"{bound}" if "=" in operator or not exact else f"({bound}"
    bounds = {"=": f"{bound} {bound}", "<": f"-inf {end}", ">": f"{end} +inf"}
    return Condition(f"@{field}:[{bounds[operator[0]]}]", exact)


class Search(planner.Search):
    """The search for one criterion in one namespace, at one point in time.

    The server intersects lookups itself, so every drive runs the same query, which contains the whole criterion.
    """

    def __init__(self, wire: Wire, index: Index, keys: Keys, *, namespace: str, criterion: Criterion, now: int) -> None:
        self._wire, self._index, self._keys, self._namespace, self._now = wire, index, keys, namespace, now
        self.plan, exactly = plan(criterion)
        self._ids = named_ids(self.plan)
        self._translation = Translation(Tokens(namespace))
        self._text, is_exact = self._translation.of(self.plan)
        self._query = f"{self._translation.all} {self._text} -@expires_at:[-inf {now}]"
        self._exactly = self.exact = exactly and is_exact
        self._rows: list[Row] | None = None  # all matches, if there are few

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        if order.path or (self._text and self._number <= self.drive_limit) or self._ids is not None:
            return self._driven(order, after, max(wanted, self.drive_limit))
        if self._text and order.field != "id":
            return self._by_time(order, after, wanted)
        return self._passed(order, after, wanted, most)

    def estimate(self, drives: Sequence[planner.Drive], limit: int) -> Sequence[int]:  # noqa: ARG002  # always `drive_limit`
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
        listed, expired = self._wire.transaction(("ZCARD", ids), ("ZCOUNT", expiries, "-inf", self._now))
        return int(listed) - int(expired)

    def count(self, drive: planner.Drive | None, matches: int) -> int:
        """Count in several short queries, so that none blocks the server: one for each range of creation times."""
        if drive is not None and matches <= self.drive_limit:
            return matches
        total, near = 0, "-inf"
        while near:
            condition, near = self._window(_OLDEST_FIRST, near, _COUNTED)
            total += self._index.count(f"{self._query} {condition}")
        return total

    @cached_property
    def _number(self) -> int:
        """The number of matches, up to `drive_limit` plus one. Few matches are read instead of counted."""
        if self._ids is not None:
            return len(self._ids)
        rows = self._index.fetch(self._query, _FEW + 1)
        if len(rows) > _FEW:
            return self._index.count(self._query, self.drive_limit + 1)
        self._rows = rows
        return len(rows)

    def _driven(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches in order, in batches of ``wanted``. This bounds memory, but each batch reads all matches."""
        while found := planner.nearest(self.drive(None, order, after, wanted), order.place, order, after, wanted):
            yield from found
            if len(found) < wanted:
                return
            after = order.place(found[-1])

    def _by_time(self, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the matches ordered by a time, querying the index for successive ranges of times."""
        near = f"{after[0]}" if after else "+inf" if order.descending else "-inf"
        few = min(2 * wanted, _AT_ONCE)
        size = 2 * few
        while near:
            condition, next_start = self._window(order, near, size)
            query = f"{self._query} {condition}"
            rows = self._index.fetch(query, few + 1)
            if len(rows) > few:
                if size > few:
                    size = max(size // _NARROWER, few)
                    continue
                rows = list(self._index.all(query))  # the range cannot be narrowed: many have the same time
            found = list(self._records(rows))
            yield from planner.nearest(found, order.place, order, after, len(found))
            near = next_start
            if len(found) < wanted:
                size = min(_WIDER * size, _WIDEST)

    def _window(self, order: Order, near: str, size: int) -> tuple[str, str]:
        """Return the condition for the next range of an order by time, and the start of the following range ('': none)."""
        far, *reverse = ("-inf", "REV") if order.descending else ("+inf",)
        key = self._keys.order(self._namespace, order.field)
        next_start = ""
        for _, score in self._wire.ask(
            "ZRANGE", key, near, far, "BYSCORE", *reverse, "LIMIT", size - 1, 1, "WITHSCORES"
        ):
            far = f"{score:.0f}"
            next_start = f"({far}"
        low, high = (far, near) if order.descending else (near, far)
        return f"@{order.field}:[{low} {high}]", next_start

    def _passed(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        """Yield all conversations of an order, without filtering them."""
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
        """Yield the conversations that have not expired. A missing hash is an error only if an order lists it."""
        for key, fields in rows:
            if not any(fields):
                if are_listed:
                    raise records.corrupt(key, records.LEFT_OVER)
                continue
            record = records.conversation(self._keys, self._namespace, key, fields)
            if not are_listed and any(abs(time) >= _EXACT for time in record[-3:] if time):  # rounded by the index
                exact = self._wire.ask("HMGET", key, *RECORD_FIELDS)
                record = records.conversation(self._keys, self._namespace, key, exact)
            if not record.is_expired(self._now):
                yield record
