"""Requests: bounded retries that cannot write twice, lists page by page, and what each answer, or none, means."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import ceil
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from memory.adapters.cloud.errors import MissingError, UnansweredError, doubting, refusal
from memory.adapters.cloud.session import Session
from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    StoreUnavailableError,
)
from memory.port.deadlines import remaining

T = TypeVar("T")
Fields: TypeAlias = dict[str, Any]
Filters: TypeAlias = Mapping[str, str | int]
Path: TypeAlias = tuple[str, ...]  # the parts after /api

_LEAST: Final = 0.02  # seconds: with less, a request is not worth sending
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 3.0  # seconds
_PAGE_SIZES: Final = (100, 50, 20, 10)  # the largest first: a service may refuse a size beyond its maximum


class Page(NamedTuple):
    """One page of a list; ``begin`` items come before it, and ``end`` is where the next page begins."""

    items: list[Any]
    number: int
    size: int
    begin: int
    end: int
    total: int


class Http:
    """Sends requests to one host, each in at most half of the time that its operation has left: the rest is for a retry.

    Safe to use from several threads. ``timeout`` is for what no operation limits; ``attempts`` is how often a request is sent.
    """

    def __init__(self, host: str, session: Session, *, timeout: float, attempts: int) -> None:
        self.host = host  # with scheme and port, and the path before /api if there is one
        self.session = session
        self.sleep: Callable[[float], object] = time.sleep
        self.page_size = _PAGE_SIZES[0]
        self._first_page: int | None = None  # learned from the first list
        self._timeout = timeout
        self._attempts = attempts

    def send(self, method: str, path: Path, body: Fields | None = None, parameters: Filters | None = None) -> Fields:
        """Send a request and return the answer. A write is sent again only if it certainly was not done.

        A write may be done after `UnansweredError` or `CorruptRecordError`; every other error means that it was not.
        """
        url = "/".join(["/api", *[quote(part, safe="") for part in path]])
        what, attempt = f"{method} {url}", 0
        while True:
            attempt += 1
            seconds = remaining(self._timeout) / 2
            if seconds < _LEAST:
                raise StoreUnavailableError(f"{what} to {self.host}: the time-out of {self._timeout:g} s is over")
            try:
                response = self.session.request(seconds, method, self.host, url, json=body, params=parameters)
                return self._read(response, what)
            except UnansweredError as error:
                if error.may_be_done and method != "GET":
                    raise
                wait = error.wait or _delay(attempt)
                if attempt >= self._attempts or wait >= remaining(self._timeout):
                    raise StoreUnavailableError(f"{error} ({attempt} attempts)") from error.__cause__
            self.sleep(wait)

    def pages(self, path: Path, parameters: Filters, skip: int = 0) -> Iterator[Page]:
        """Yield the pages of a list, after skipping some: at most, if their size is not known yet.

        Where items are deleted meanwhile, later items move to pages that were read before; such pages come again.
        """
        page = self._page(path, parameters, None if self._first_page is None else self._first_page + skip)
        yield page
        while page.end < page.total:
            total, number = page.total, page.number + 1
            page = self._page(path, parameters, number)
            while page.total < total:
                number = max(self._first_page or 0, number - ceil((total - page.total) / page.size))
                total = page.total
                page = self._page(path, parameters, number)
            yield page

    def _page(self, path: Path, parameters: Filters, number: int | None) -> Page:
        """Return the page with this number, or the first one; learn how pages are numbered and how large they may be (A5)."""
        asked = {**parameters, "page_size": self.page_size} | ({} if number is None else {"page": number})
        what = f"the list of {'/'.join(path)}"
        try:
            fields = self.send("GET", path, parameters=asked)
        except InvalidValueError:
            if number is not None or self.page_size == _PAGE_SIZES[-1]:
                raise
            self.page_size = next(size for size in _PAGE_SIZES if size < self.page_size)
            return self._page(path, parameters, number)
        items, pagination = member(fields, path[-1], list, what), member(fields, "pagination", dict, what)
        at, size, total = [whole(pagination, key, what) for key in ("page_number", "page_size", "total_count")]
        first = at if number is None or self._first_page is None else self._first_page
        begin = (at - first) * size
        end = begin + len(items)
        if (  # nobody would miss the items that a contradictory page lacks
            (at > 1 if number is None else at != number)
            or size < 1
            or (end > total if items else begin < total)
            or (end < total and len(items) < size)
            or (items and end == total and pagination.get("next_page") is not None)
        ):
            raise CorruptRecordError(f"{what} contradicts itself: {len(items)} items, and {pagination}"[:300])
        self._first_page, self.page_size = first, min(size, self.page_size)
        return Page(items, at, size, begin, end, total)

    def delete(self, *path: str) -> None:
        with suppress(MissingError):
            self.surely(lambda: self.send("DELETE", path), None, f"the removal of {'/'.join(path)}")

    def surely(self, send: Callable[[], T], look: Callable[[], T | None] | None, what: str) -> T:
        """Return what a write returns. If its answer is lost, return what a look finds, or send the write again.

        ``look`` returns None if nothing was written; it is None where sending twice does no harm. After an attempt that may be
        done no error claims that nothing was written, because a request can be done after the look: `CommitInDoubtError`.
        """
        doubt, attempt = "", 0
        while True:
            attempt += 1
            try:
                return send()
            except (UnansweredError, CorruptRecordError) as error:  # no answer, or one that makes no sense
                doubt, wait = str(error), getattr(error, "wait", 0.0) or _delay(attempt)
                self.sleep(min(wait, remaining(self._timeout) / 2))
                with doubting(f"{doubt}; whether {what} was written could not be found out"):
                    found = None if look is None else look()
                if found is not None:
                    return found
                if attempt >= self._attempts:
                    raise CommitInDoubtError(f"{doubt} ({attempt} times); {what} may be or become written") from error
            except (StoreUnavailableError, ConfigurationError, InvalidValueError) as error:
                if not doubt:
                    raise
                raise CommitInDoubtError(f"{doubt}; then {error}. {what} may be written all the same") from error

    def _read(self, response: requests.Response, what: str) -> Fields:
        status = response.status_code
        if (is_refused := status == requests.codes.too_many_requests) or status >= requests.codes.internal_server_error:
            wait = _retry_after(response)
            text = f"{self.host} answered {what} with {status}{f', and asks to wait {wait:.0f} s' if wait else ''}"
            raise UnansweredError(text, wait, may_be_done=not is_refused)
        if status >= requests.codes.multiple_choices:
            raise refusal(status, self._words(response), self.host, what)
        if status == requests.codes.no_content:
            return {}
        try:
            fields = response.json()
        except requests.JSONDecodeError as error:
            kind = self.session.masked(response.headers.get("Content-Type", "no type"))
            raise UnansweredError(f"the answer of {self.host} to {what}, {kind}, is not JSON") from error
        except (ValueError, RecursionError) as error:  # a number with too many digits, or nested too deep
            raise CorruptRecordError(f"the answer of {self.host} to {what} cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise UnansweredError(f"{self.host} answered {what} with JSON that is not an object")
        return fields

    def _words(self, response: requests.Response) -> str:
        try:
            messages = [str(error["message"]) for error in response.json()["errors"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return f" ({self.session.masked('; '.join(messages))})" if messages else ""


def _delay(attempt: int) -> float:
    longest: float = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (attempt - 1))
    return random.uniform(0.5, 1.0) * longest  # noqa: S311  # jitter is no secret


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that the service asks to wait; 0 if it does not."""
    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except (HTTPError, ValueError, OverflowError):
        return 0.0


def member(fields: object, name: str, kind: Any, what: str) -> Any:
    """Return a member of an answer; raise `CorruptRecordError` if there is none of this type."""
    found = fields.get(name, ...) if isinstance(fields, dict) else ...
    if not isinstance(found, kind):
        raise CorruptRecordError(f"{what} has no {name}, or one of another type than {kind}")
    return found


def whole(fields: object, name: str, what: str) -> int:
    """Return a count of an answer, which may be written as 3.0; raise `CorruptRecordError` if there is none."""
    found = member(fields, name, int | float, what)
    if isinstance(found, bool) or not 0 <= found < 2**53 or found != int(found):
        raise CorruptRecordError(f"{what} has no {name} that is a whole number")
    return int(found)
