"""Faults of pages and of criteria."""

# a fault looks at as much of what it is given as it needs

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from memory.domain.criteria import EVERYTHING, Criterion, Exists, Not, OneOf, OnMetadata, Orders, Path
from memory.domain.entities import Conversation
from memory.domain.values import Json, encode
from memory.port.paging import Order, Page, Query
from tests.contract.faults.base import Faulty, record_of

# Pages


class EqualTimesSkipped(Faulty):
    """A cursor by the time alone: what has the same time as the last of a page is not on the next."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        page = super().find(namespace, query)
        if query.after is None or query.order.field == "id":
            return page
        return Page(tuple([one for one in page if query.order.place(record_of(one))[0] != query.after[0]]), page.cursor)


class CursorIncluded(Faulty):
    """A page begins with the last of the page before."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        page = super().find(namespace, query)
        last = query.after and self.get(namespace, query.after[-1])
        return Page((last, *page)[: query.limit], page.cursor) if last else page


class CursorByOffset(Faulty):
    """A cursor that counts: what is removed behind it makes it skip."""

    def __init__(self) -> None:
        super().__init__()
        self._behind: dict[object, int] = {}

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        everything = list(super().find(namespace, replace(query, after=None, limit=10**6)))
        begin = self._behind.get((namespace, query.order, query.after), 0)
        page = everything[begin : begin + query.limit]
        cursor = super().find(namespace, replace(query, after=None, limit=begin + query.limit)).cursor
        if cursor:
            self._behind[namespace, query.order, query.order.place(record_of(page[-1]))] = begin + query.limit
        return Page(tuple(page), cursor)


class NoSecondPage(Faulty):
    """There is never a cursor."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        return Page(super().find(namespace, query).items)


class IdsOnlyAscend(Faulty):
    """An order by id descends never."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        return super().find(
            namespace, replace(query, order=Order("id", descending=False)) if query.order.field == "id" else query
        )


class TiesOnlyAscend(Faulty):
    """Equal times come by ascending id in a descending order too."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        page = super().find(namespace, query)
        if query.order.field == "id" or not query.order.descending:
            return page
        by_id = sorted(page, key=lambda one: one.id)
        return Page(tuple(sorted(by_id, key=lambda one: -cast(int, query.order.place(record_of(one))[0]))), page.cursor)


class IdsSortedAsUtf16(Faulty):
    """Ids in the order of their UTF-16 code units."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        page = super().find(namespace, query)
        if query.order.field != "id":
            return page
        items = sorted(page, key=lambda one: one.id.encode("utf-16-be"), reverse=query.order.descending)
        return Page(tuple(items), page.cursor)


# Criteria


class NegationIgnored(Faulty):
    """``~`` finds everything."""

    def meant(self, criterion: Criterion) -> Criterion:
        return EVERYTHING if isinstance(criterion, Not) else super().meant(criterion)


class MissingKeysDoNotDiffer(Faulty):
    """``!=`` leaves out conversations that lack the key, as NULL does in SQL."""

    def meant(self, criterion: Criterion) -> Criterion:
        if isinstance(criterion, Not) and isinstance(criterion.part, OneOf):
            return criterion & Exists(criterion.part.path)
        return super().meant(criterion)


class _Holds(OnMetadata):
    def __init__(self, path: Path, test: Callable[[Json], bool]) -> None:
        self.path = path
        self._test = test

    def matches_value(self, value: Json) -> bool:
        return self._test(value)


class _OtherEquality(Faulty):
    def equal(self, value: Json, other: Json) -> bool:
        raise NotImplementedError

    def meant(self, criterion: Criterion) -> Criterion:
        if isinstance(criterion, OneOf):
            values = criterion.values
            return _Holds(criterion.path, lambda value: any(self.equal(value, one) for one in values))
        return super().meant(criterion)


class EqualityByText(_OtherEquality):
    """1 does not equal 1.0."""

    def equal(self, value: Json, other: Json) -> bool:
        return encode(value, "") == encode(other, "")


class EqualityOfPython(_OtherEquality):
    """True equals 1."""

    def equal(self, value: Json, other: Json) -> bool:
        return value == other


class EqualityOfDoubles(_OtherEquality):
    """2**53 equals 2**53 + 1."""

    def equal(self, value: Json, other: Json) -> bool:
        if not isinstance(value, int) or not isinstance(other, int) or max(abs(value), abs(other)) > 2**1000:
            return OneOf((), (other,)).matches_value(value)
        return float(value) == float(other) and isinstance(value, bool) == isinstance(other, bool)


class EqualityOfBeginnings(_OtherEquality):
    """Long strings are equal when their first 256 characters are."""

    def equal(self, value: Json, other: Json) -> bool:
        cut = [one[:256] if isinstance(one, str) else one for one in (value, other)]
        return OneOf((), (cut[1],)).matches_value(cut[0])


class StringsSortedAsUtf16(Faulty):
    """Strings compare by UTF-16 code units."""

    def meant(self, criterion: Criterion) -> Criterion:
        if not isinstance(criterion, Orders) or not isinstance(criterion.bound, str):
            return super().meant(criterion)
        return _Holds(criterion.path, lambda value: isinstance(value, str) and self._compare(criterion, value))

    def _compare(self, criterion: Orders, value: str) -> bool:
        units = [text.encode("utf-16-be", "surrogatepass").hex() for text in (value, cast(str, criterion.bound))]
        return Orders((), criterion.operator, units[1]).matches_value(units[0])


class BooleansAreOrdered(Faulty):
    """True is greater than 0."""

    def meant(self, criterion: Criterion) -> Criterion:
        if not isinstance(criterion, Orders):
            return super().meant(criterion)
        return _Holds(
            criterion.path, lambda value: criterion.matches_value(int(value) if isinstance(value, bool) else value)
        )


class DotsDivideEveryPath(Faulty):
    """A key with a dot in it is taken for a path."""

    def meant(self, criterion: Criterion) -> Criterion:
        if isinstance(criterion, OneOf | Exists | Orders):
            return replace(criterion, path=tuple(".".join(criterion.path).split(".")))
        return super().meant(criterion)


class CountsAll(Faulty):
    """``count`` takes no notice of the criterion."""

    def count(self, namespace: str, criterion: Criterion) -> int:
        return super().count(namespace, EVERYTHING)
