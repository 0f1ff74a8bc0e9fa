"""Lists of the service, page by page, whichever way its pages are counted, cut and linked (A5)."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, Final, NamedTuple

from memory.adapters.cloud.http import Http, member, whole
from memory.errors import CorruptRecordError, InvalidValueError

_SIZES: Final = (100, 50, 20, 10)
"""What is asked for, the largest first: a service may refuse a size that is beyond its own maximum."""


_SMALLEST: Final = 10
"""Of a page that is to hold a window: its items tell in which order the service lists them."""


class Page(NamedTuple):
    """One page of a list, as it came. ``size`` is what the service cut it to, ``begin`` how many items come before it."""

    items: list[Any]
    number: int
    size: int
    begin: int
    total: int

    @property
    def is_last(self) -> bool:
        """Whether no item comes after it."""
        return self.begin + len(self.items) >= self.total


class Lists:
    """Reads pages, and learns on the way how this service counts them.

    Attributes:
        first: the number of its first page; None until one was read without asking for a number.
        largest: the largest page it gives.
        fixed: whether it gives pages of that size whatever is asked.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        self.first: int | None = None
        self.largest = _SIZES[0]
        self.fixed = False

    def page(self, path: str, name: str, parameters: Mapping[str, str | int], number: int | None, size: int) -> Page:
        """Return one page: of this number, or the first."""
        asked = {**parameters, "page_size": size}
        if number is not None:
            asked["page"] = number
        what = f"the answer to GET {path}"
        fields = self._http.get(path, asked)
        items, pagination = member(fields, name, list, what), member(fields, "pagination", dict, what)
        at, cut, total = [whole(pagination, key, what) for key in ("page_number", "page_size", "total_count")]
        if number is None:
            self.first = at
        first = at if self.first is None else self.first
        page = Page(items, at, cut, (at - first) * cut, total)
        if _contradicts(page, number, pagination.get("next_page")):
            raise CorruptRecordError(f"{what} contradicts itself: {len(items)} items, and {pagination}"[:300])
        if cut != size and items:
            self.largest, self.fixed = cut, self.fixed or cut > size
        return page

    def pages(self, path: str, name: str, parameters: Mapping[str, str | int]) -> Iterator[Page]:
        """Yield every page, from the first on.

        Where items were deleted meanwhile, others have moved to pages that were read before: these come again.
        """
        page = self._first(path, name, parameters)
        yield page
        size = page.size
        while not page.is_last:
            total, number = page.total, page.number + 1
            page = self.page(path, name, parameters, number, size)
            while page.total < total:
                number = max(self.first or 0, number - ceil((total - page.total) / size))
                total = page.total
                page = self.page(path, name, parameters, number, size)
            yield page

    def _first(self, path: str, name: str, parameters: Mapping[str, str | int]) -> Page:
        while True:
            try:
                return self.page(path, name, parameters, None, self.largest)
            except InvalidValueError:
                smaller = [size for size in _SIZES if size < self.largest]
                if not smaller:
                    raise
                self.largest = smaller[0]

    def covering(self, begin: int, end: int) -> tuple[int, range]:
        """Return the size and the numbers (from 0) of the fewest pages that hold the items from ``begin`` to before ``end``."""
        length, largest = end - begin, self.largest
        if not self.fixed:
            # a page that happens to hold them all: sizes divide a long list in many ways
            for size in range(max(length, min(_SMALLEST, largest)), largest + 1):
                if begin // size == (end - 1) // size:
                    return size, range(begin // size, begin // size + 1)
        return largest, range(begin // largest, (end - 1) // largest + 1)


def _contradicts(page: Page, asked: int | None, following: object) -> bool:
    """Tell whether a page cannot be what it says, or has fewer items than it must: nobody would notice those that are missing."""
    end = page.begin + len(page.items)
    return (
        (page.number > 1 if asked is None else page.number != asked)
        or page.size < 1
        or (bool(page.items) and end > page.total)
        or (not page.is_last and len(page.items) < page.size)
        or (bool(page.items) and page.is_last and following is not None)
    )
