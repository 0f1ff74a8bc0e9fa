"""Lists of the service, page by page, whichever way its pages are counted, cut and linked (A5)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from memory.adapters.cloud.http import Fields, Http, part
from memory.adapters.cloud.records import whole
from memory.errors import InvalidValueError

_SIZES: Final = (100, 50, 20, 10)
"""What is asked for, the largest first: a service may refuse a size that is beyond its own maximum."""


_SMALLEST: Final = 10
"""Of a page that is to hold a window: its items tell in which order the service lists them."""


class Page(NamedTuple):
    """One page of a list, as it came. ``size`` is what the service cut it to, ``following`` the number of the next page."""

    items: list[Any]
    number: int
    size: int
    total: int
    following: int | None


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
        fields = self._http.get(path, asked)
        items = part(fields, name, f"GET {path}")
        given = fields.get("pagination")
        pagination = given if isinstance(given, dict) else {}
        at = pagination.get("page_number", number)
        at = 1 if at is None else whole(at)
        if number is None:
            self.first = at
        cut = whole(pagination.get("page_size")) or size
        if cut != size and items:
            self.largest, self.fixed = cut, self.fixed or cut > size
        following = self._following(pagination, at) if items else None  # an empty page is the end, whatever it says
        return Page(items, at, cut, max(whole(pagination.get("total_count")), len(items)), following)

    def _following(self, pagination: Fields, number: int) -> int | None:
        link = pagination.get("next_page")
        if isinstance(link, int | float):
            return int(link) if link > number else None
        more = number - (1 if self.first is None else self.first) + 1 < whole(pagination.get("total_pages"))
        return number + 1 if more else None

    def pages(self, path: str, name: str, parameters: Mapping[str, str | int]) -> Iterator[Page]:
        """Yield every page, from the first on."""
        page = self._first(path, name, parameters)
        yield page
        while page.following is not None:
            page = self.page(path, name, parameters, page.following, page.size)
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
