"""Finding conversations: a plan of index look-ups becomes the text of a query, and pages come by keyset.

A query's text is made of the names of fields, numbers and tokens (`tokens.py`), and of nothing else. Conversations are sorted by
a time and their id, or by their id; the place a page begins after is a condition like any other, on numbers: the time, and the
id's first bytes (`ID_RANKS`). For ids that are equal so far a filter compares the whole. `page.lua` reads a page.

It is FT.AGGREGATE that is asked: of the two commands it alone sorts by two fields, and says when it was cut short.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from memory.adapters.redis.index import Index
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.records import conversation_record
from memory.adapters.redis.tokens import ENCODING, ID_RANK_END, ID_RANKS, Tokens, id_digits, id_ranks, is_told_by_ranks
from memory.adapters.redis.wire import Argument
from memory.domain.criteria import FieldCompares, Operator
from memory.domain.records import ConversationRecord
from memory.errors import CorruptRecordError
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless
from memory.port.paging import Order, Place

_AT_ONCE: Final = 2_000
"""Conversations that one query returns at most; the server's own limits (MAXSEARCHRESULTS and others) are far above that."""

_DEEPEST: Final = 40
"""Levels of a plan that go into a query's text, as 2.5 levels of parentheses each: above 120 the server's parser gives up."""

_MOST_TOKENS: Final = 20_000
"""Tokens in a query's text; beyond that conversations are sooner looked at than looked up."""

_LOADED: Final = ("@__key", *(f"@{name}" for name in RECORD_FIELDS), "@by_id", "@by_created_at", "@by_updated_at")
_ID, _VERSION = _LOADED.index("@id"), _LOADED.index("@version")
_FURTHEST_TIME: Final = 2**58  # microseconds: beyond the years 1 and 9999

_EXACT: Final = 2**53
_FURTHEST: Final = 2**70  # beyond any number that is stored; Python's integers go on
ANY: Final = "@by_updated_at:[-inf +inf]"
"""What every conversation meets, in whichever namespace."""

_NOTHING: Final = "@entries:{none}"  # no token is as short as that


@dataclass(frozen=True, slots=True)
class Condition:
    """The text of a condition. No text: everything.

    Attributes:
        exact: it is exactly what was planned (else: more).
        negates: there is a negation in it.
        unless: where all of it is a negation, the text of what is negated.
    """

    text: str
    exact: bool = True
    negates: bool = False
    unless: str = ""


_EVERYTHING: Final = Condition("")
_TOO_MUCH: Final = Condition("", exact=False)


class Translation:
    """One plan in the language of queries."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._tokens_left = _MOST_TOKENS
        self._all = f"@namespace:{{{tokens.namespace}}}"

    def of(self, plan: Plan, depth: int = 0) -> Condition:
        """Return the condition that a plan is, or one that more conversations meet."""
        if depth > _DEEPEST:
            return _TOO_MUCH
        match plan:
            case KeyIn():
                return self._one_of(self._tokens.equal(plan.path, plan.keys))
            case KeyBetween():
                tokens, exact = self._tokens.between(plan)
                return self._one_of(tokens, exact=exact)
            case FieldCompares():
                return _compares(plan.field, plan.operator, plan.value)
            case Unless():
                part = self.of(plan.part, depth + 1)
                return self._unless(part.text or self._all) if part.exact else _TOO_MUCH
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
            return replace(self._unless(f"({self._all} {none})"), exact=exact)
        return Condition(f"({' | '.join(part.text for part in parts)})" if parts else _NOTHING, exact)

    def _unless(self, text: str) -> Condition:
        return Condition(f"({self._all} -({text}))", negates=True, unless=f"({text})")


def _compares(field: str, operator: Operator, value: object) -> Condition:
    if isinstance(value, str):
        return _compares_id(operator, value)
    number = cast(int, value)
    exact = abs(number) < _EXACT
    if not exact:  # as doubles they may be equal: look about the bound too
        operator = cast(Operator, operator[0] + "=")
    indexed = field if field == "run_count" else f"by_{field}"
    return Condition(_range(indexed, operator, min(max(number, -_FURTHEST), _FURTHEST)), exact)


def _compares_id(operator: Operator, value: str) -> Condition:
    ranks = list(zip(ID_RANKS, id_ranks(value), strict=True))
    equal = " ".join(_range(field, "==", rank) for field, rank in ranks)
    told = is_told_by_ranks(value)
    if operator == "==":
        return Condition(f"({equal})", told)
    parts = list(_beyond(ranks, descending=operator[0] == "<"))
    if not told or operator.endswith("="):
        parts.append(equal)
    return Condition(_union(parts), told)


def _range(field: str, operator: Operator, value: int | float) -> str:
    low, high = {
        "==": (f"{value}", f"{value}"),
        "<": ("-inf", f"({value}"),
        "<=": ("-inf", f"{value}"),
        ">": (f"({value}", "+inf"),
        ">=": (f"{value}", "+inf"),
    }[operator]
    return f"@{field}:[{low} {high}]"


def _beyond(place: Sequence[tuple[str, int]], *, descending: bool) -> Iterator[str]:
    """Yield the parts of what lies beyond a place, the nearest last: beyond in one number, and equal in those before it."""
    equal = ""
    for field, value in place:
        yield equal + _range(field, "<" if descending else ">", value)
        equal += _range(field, "==", value) + " "


def _union(parts: Sequence[str]) -> str:
    return "(" + " | ".join(f"({part})" for part in parts) + ")"


def encoded(prefix_tokens: Tokens, record: ConversationRecord, entries: str) -> dict[str, str]:
    """Return the fields of a conversation's hash that are for the index only."""
    ranks = zip(ID_RANKS, map(str, id_ranks(record.id)), strict=True)
    return {
        "encoding": ENCODING,
        "namespace": prefix_tokens.namespace,
        "entries": entries,
        "by_created_at": str(record.created_at),
        "by_updated_at": str(record.updated_at),
        "by_id": id_digits(record.id),
        **dict(ranks),
    }


class Search:
    """One plan, in one namespace, at one moment.

    Args:
        index: where to look.
        keys: the names of keys.
        namespace: the namespace.
        plan: what to look for.
        now: what expires until then is not found.
        expired: find what is expired instead, and nothing else.
    """

    def __init__(
        self, index: Index, keys: Keys, namespace: str, plan: Plan, *, now: int, expired: bool = False
    ) -> None:
        self._index, self._keys, self._namespace = index, keys, namespace
        tokens = Tokens(keys.prefix, namespace)
        condition = Translation(tokens).of(plan)
        self.exact = condition.exact
        self._found = (
            f"@namespace:{{{tokens.namespace}}} {condition.text} {'' if expired else '-'}@expires_at:[-inf {now}]"
        )
        self._now = now

    def count(self) -> int:
        """Return how many conversations there are."""
        return self._index.count(self._found)

    def page(self, order: Order, after: Place | None, limit: int) -> list[ConversationRecord]:
        """Return at most so many records after a place, in order."""
        records: list[ConversationRecord] = []
        while True:
            size = min(limit - len(records), _AT_ONCE)
            rows = self._page(Sorting(order, after, self._now), size)
            # A conversation may be gone between being found and being read, when its keys have come to their end.
            records += [self._record(row) for row in rows if row[_ID] or row[_VERSION]]
            if len(rows) < size or len(records) >= limit:
                return records
            after = _place(order, rows[-1])

    def keys_found(self, limit: int) -> list[str]:
        """Return the keys of some of the conversations, in no order."""
        return self._index.keys_found(self._found, limit)

    def _page(self, sorting: "Sorting", size: int) -> list[list[bytes]]:
        by = [argument for field in sorting.fields for argument in (f"@{field}", sorting.direction)]
        arguments: list[Argument] = [sorting.filter, sorting.beyond, sorting.direction, len(sorting.levels)]
        arguments += [argument for level in sorting.levels for argument in level]
        arguments += ["SORTBY", len(by), *by, "MAX", size, "LIMIT", 0, size, "LOAD", len(_LOADED), *_LOADED]
        return self._index.page(self._found, size, *arguments)

    def _record(self, row: Sequence[bytes]) -> ConversationRecord:
        key = row[0].decode(errors="replace")
        record = conversation_record(key, [value or None for value in row[1 : 1 + len(RECORD_FIELDS)]])
        if self._keys.conversation(self._namespace, record.id) != key:
            raise CorruptRecordError(
                f"the hash at {key} says that it is conversation {record.id!r}, which has another key"
            )
        return record


class Sorting:
    """An order from a place on, in the index's terms.

    Attributes:
        fields: what to sort by.
        direction: ASC or DESC.
        filter: tells those beyond the place from those that have the same numbers.
        beyond: the condition of being beyond the place, or there as far as numbers can tell.
        levels: the ways to go on from the place, as `page.lua` takes them.
    """

    def __init__(self, order: Order, after: Place | None, now: int) -> None:
        time = () if order.field == "id" else (f"by_{order.field}",)
        names = (*time, *ID_RANKS)
        self.fields = (*time, "by_id")
        self.direction = "DESC" if order.descending else "ASC"
        self.filter = self.beyond = ""
        if after is None:
            near, begin = ("+inf", now if time else ID_RANK_END) if order.descending else ("-inf", 0)
            self.levels = [_level(order, names[0], equal="", near=near, begin=begin, nearer="")]
            return
        *moments, conversation_id = cast("tuple[int, str]", after)
        place = list(zip(names, (*moments, *id_ranks(conversation_id)), strict=True))
        self.filter = f"@by_id {'<' if order.descending else '>'} '{id_digits(conversation_id)}'"
        if time:
            self.filter = f"@{time[0]} != {moments[0]} || {self.filter}"
        equal = [_range(name, "==", value) for name, value in place]
        parts = [*_beyond(place, descending=order.descending), " ".join(equal)]
        self.beyond = _union(parts)
        self.levels = [
            _level(
                *(order, name),
                equal="".join(f"{one} " for one in equal[:n]),
                near=f"({value}",
                begin=value,
                nearer=_union(parts[n + 1 :]),
            )
            for n, (name, value) in enumerate(place)
        ]


def _level(order: Order, field: str, *, equal: str, near: str, begin: int, nearer: str) -> tuple[Argument, ...]:
    if field in ID_RANKS:
        far, step = (0 if order.descending else ID_RANK_END), 256
    else:
        far, step = (-_FURTHEST_TIME if order.descending else _FURTHEST_TIME), 1_000_000
    return field, equal, near, begin, far, step, nearer


def _place(order: Order, row: Sequence[bytes]) -> Place:
    conversation_id = bytes.fromhex(row[_LOADED.index("@by_id")].decode()).decode()
    if order.field == "id":
        return (conversation_id,)
    return int(float(row[_LOADED.index(f"@by_{order.field}")])), conversation_id
