"""Requests: bounded retries that cannot write twice, lists page by page, and what each answer, or none, means."""

import random
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import requests
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import Timeout

from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
    StoreUnavailableError,
)
from memory.port.deadlines import remaining
from memory.port.forking import ForkAware, watch

KEY_VARIABLE: Final = "GT_CLOUD_API_KEY"
T = TypeVar("T")
Fields: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]  # the parts after /api

_HEADERS: Final = {"User-Agent": f"conversation-memory ({requests.utils.default_user_agent()})"}
_LEAST: Final = 0.02  # seconds: with less, a request is not worth sending
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 3.0  # seconds


class MissingError(NotFoundError):
    """The service has no such thread or message."""


class UnansweredError(CommitInDoubtError):
    """A request got no answer, or one that does not show what was done; ``wait``: for so long the service asked to wait."""

    def __init__(self, message: str, wait: float = 0.0, *, may_be_done: bool = True) -> None:
        super().__init__(message)
        self.wait = wait
        self.may_be_done = may_be_done


@contextmanager
def doubting(message: str) -> Iterator[None]:
    """Raise `CommitInDoubtError` where a look for a write fails: that does not show that nothing was written."""
    try:
        yield
    except (StoreUnavailableError, ConfigurationError, CorruptRecordError, InvalidValueError) as error:
        raise CommitInDoubtError(f"{message}: {error}") from error


class Page(NamedTuple):
    """One page of a list; ``begin`` items come before it, and ``end`` is where the next page begins."""

    items: list[Any]
    number: int
    begin: int
    end: int
    total: int


class Http(ForkAware):
    """Sends requests to one host, each in at most half of the time that its operation has left: the rest is for a retry.

    Safe to use from several threads. ``timeout`` is for what no operation limits.
    """

    def __init__(self, host: str, key: str, session: requests.Session | None, timeout: float) -> None:
        self.host = host
        self.sleep: Callable[[float], object] = time.sleep
        self.attempts = 5  # how often a request is sent at most
        self.page_size = 100  # the service may give less (A5)
        self._first_page: int | None = None  # learned from the first list
        self._key = key
        self._is_owned = session is None
        self._session = session or requests.Session()
        self._inherited: list[requests.Session] = []  # kept: its collection takes locks that a fork leaves locked
        self._timeout = timeout
        watch(self)

    def after_fork_in_child(self) -> None:
        self._inherited.append(self._session)
        self._session = requests.Session()

    def close(self) -> None:
        if self._is_owned:
            self._session.close()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key, as an ``auth``: ``~/.netrc`` would replace a header, and a header of the session would stay in it."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def send(self, method: str, path: Path, body: Fields | None = None, parameters: Fields | None = None) -> Fields:
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
                return self._request(seconds, method, url, json=body, params=parameters)
            except UnansweredError as error:
                if error.may_be_done and method != "GET":
                    raise
                wait = error.wait or _delay(attempt)
                if attempt >= self.attempts or wait >= remaining(self._timeout):
                    raise StoreUnavailableError(f"{error} ({attempt} attempts)") from error.__cause__
            self.sleep(wait)

    def pages(self, path: Path, parameters: Fields, skip: int = 0) -> Iterator[Page]:
        """Yield the pages of a list, after skipping some: at most, if their size is not known yet.

        Where items are deleted meanwhile, later items move to pages that were read before: all pages come again.
        """
        begin = None if self._first_page is None else self._first_page + skip
        page = self._page(path, parameters, begin)
        yield page
        while page.end < page.total:
            total = page.total
            page = self._page(path, parameters, page.number + 1)
            if page.total < total:
                page = self._page(path, parameters, begin)
            yield page

    def _page(self, path: Path, parameters: Fields, number: int | None) -> Page:
        """Return the page with this number, or the first one; learn how pages are numbered and how large they may be (A5)."""
        asked = parameters if number is None else {**parameters, "page": number}
        what = f"the list of {'/'.join(path)}"
        try:
            fields = self.send("GET", path, parameters={**asked, "page_size": self.page_size})
        except InvalidValueError:  # the size is beyond the service's maximum
            fields = self.send("GET", path, parameters=asked)
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
        return Page(items, at, begin, end, total)

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
                if attempt >= self.attempts:
                    raise CommitInDoubtError(f"{doubt} ({attempt} times); {what} may be or become written") from error
            except (StoreUnavailableError, ConfigurationError, InvalidValueError) as error:
                if not doubt:
                    raise
                raise CommitInDoubtError(f"{doubt}; then {error}. {what} may be written all the same") from error

    def _request(self, seconds: float, method: str, url: str, **options: Any) -> Fields:
        """Send one request; return the object that answers it."""
        if self._inherited and not self._is_owned:
            raise ConfigurationError(
                "the process was forked since the repository got its session: open it after the fork"
            )
        # Redirects are not followed: a POST would arrive as a GET, and the key at another host.
        options |= {"auth": self, "headers": _HEADERS, "allow_redirects": False, "timeout": Timeout(total=seconds)}
        what = f"{method} {url}"
        try:
            response = self._session.request(method, self.host + url, **options)
        except Exception as error:
            _forget_key(error)
            raise _meaning_of(error, self.host, what) from error
        response.request.headers.pop("Authorization", None)
        status, said = response.status_code, self._said(response)
        if (is_refused := status == requests.codes.too_many_requests) or status >= requests.codes.internal_server_error:
            asked = response.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdecimal() else 0.0
            text = f"{self.host} answered {what} with {status}{f', and asks to wait {wait:.0f} s' if wait else ''}"
            raise UnansweredError(text, wait, may_be_done=not is_refused)
        if status >= requests.codes.multiple_choices:
            raise _refusal(status, said, self.host, what)
        if status == requests.codes.no_content:
            return {}
        try:
            fields = response.json(parse_constant=str)  # NaN, which is no JSON, becomes a text
        except requests.JSONDecodeError as error:
            raise UnansweredError(f"{self.host} answered {what} with what is not JSON{said}") from error
        except (ValueError, RecursionError) as error:  # a number with too many digits, or nested too deep
            raise CorruptRecordError(f"the answer of {self.host} to {what} cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise UnansweredError(f"{self.host} answered {what} with JSON that is not an object")
        return fields

    def _said(self, response: requests.Response) -> str:
        """Return the service's words without the key, and not too many of them."""
        return f": {response.text.replace(self._key, '***')[:300]}" if response.text else ""


def _meaning_of(error: Exception, host: str, what: str) -> PersistenceError:
    """Return what an exception of requests means."""
    if isinstance(error, ValueError) or type(error) is OSError:  # an address, a proxy or a file of certificates
        return ConfigurationError(f"requests cannot send to {host}: {type(error).__name__}")
    reason = getattr(error.args[0], "reason", None) if error.args else None  # what urllib3 says of a connection
    if _can_never_be_reached(reason):
        return ConfigurationError(f"{host} cannot be reached: {reason}"[:300])
    was_sent = not isinstance(reason, NewConnectionError | ConnectTimeoutError)
    return UnansweredError(f"{host} did not answer {what}: {reason or type(error).__name__}", may_be_done=was_sent)


def _can_never_be_reached(reason: object) -> bool:
    """Return whether a connection failed for a permanent reason: an unknown host, or a certificate that is not trusted."""
    cause = reason.__cause__ if isinstance(reason, NameResolutionError) else getattr(reason, "args", (None,))[0]
    is_unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
    return is_unknown or isinstance(cause, ssl.SSLCertVerificationError)


def _refusal(status: int, said: str, host: str, what: str) -> PersistenceError:
    """Return the error for an answer with a status of 3xx or 4xx."""
    text = f"{host} answered {what} with {status}{said}"
    if status < requests.codes.bad_request or status in (401, 403, 407):
        return ConfigurationError(f"{text}; check the address of the service, and the key in {KEY_VARIABLE}")
    if status in (404, 410):
        return MissingError(text)
    if status == requests.codes.conflict:  # an alias that is taken: perhaps by the same write, sent before
        return UnansweredError(text)
    return InvalidValueError(f"{text}; nothing was written")


def _forget_key(error: BaseException) -> None:
    """Remove the key from what an exception refers to, which reports of errors include: requests, and local variables."""
    link: BaseException | None = error
    while link is not None:
        if (request := getattr(link, "request", None)) is not None:
            request.headers.pop("Authorization", None)
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _delay(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (attempt - 1))  # noqa: S311  # no secret


def member(fields: object, name: str, kind: Any, what: str) -> Any:
    """Return a member of an answer; raise `CorruptRecordError` if there is none of this type."""
    found = fields.get(name, ...) if isinstance(fields, dict) else ...
    if not isinstance(found, kind):
        raise CorruptRecordError(f"{what} has no {name}, or one of another type than {kind}")
    return found


def whole(fields: object, name: str, what: str) -> int:
    """Return a count of an answer, which may be written as 3.0; raise `CorruptRecordError` if there is none."""
    found = member(fields, name, int | float, what)
    if not 0 <= found < 2**53 or found % 1:
        raise CorruptRecordError(f"{what} has no {name} that is a whole number")
    return int(found)
