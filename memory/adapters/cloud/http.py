"""HTTP client of the service: retries that never write twice, paginated lists, and the errors that responses stand for."""

import random
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
from memory.port.causes import is_unknown_host
from memory.port.deadlines import remaining
from memory.port.forking import ForkAware, watch

KEY_VARIABLE: Final = "GT_CLOUD_API_KEY"
T = TypeVar("T")
Fields: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]  # the parts after /api

_HEADERS: Final = {"User-Agent": f"conversation-memory ({requests.utils.default_user_agent()})"}
_LEAST: Final = 0.02  # seconds: with less time left, no request is sent
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 3.0  # seconds


class MissingError(NotFoundError):
    """The service has no such thread or message."""


class UnansweredError(CommitInDoubtError):
    """The response is missing, or does not show whether the request was done. ``wait`` is the service's ``Retry-After``."""

    def __init__(self, message: str, wait: float = 0.0, *, may_be_done: bool = True) -> None:
        super().__init__(message)
        self.wait = wait
        self.may_be_done = may_be_done


@contextmanager
def in_doubt_on_error(message: str) -> Iterator[None]:
    """Convert errors of a read that verifies a write to `CommitInDoubtError`: they do not prove that nothing was written."""
    try:
        yield
    except (StoreUnavailableError, ConfigurationError, CorruptRecordError, InvalidValueError) as error:
        raise CommitInDoubtError(f"{message}: {error}") from error


class Page(NamedTuple):
    """One page of a list: the items from offset ``begin`` up to, but not including, ``end``."""

    items: list[Any]
    number: int
    begin: int
    end: int
    total: int


class Http(ForkAware):
    """Sends requests to one host. Each may use half of the time left for its operation; the other half allows a retry.

    Instances are thread-safe. ``timeout`` applies to requests outside an operation with a deadline.
    """

    def __init__(self, host: str, key: str, session: requests.Session | None, timeout: float) -> None:
        self.host = host
        self.sleep: Callable[[float], object] = time.sleep
        self.attempts = 5  # the maximum number of times a request is sent
        self.page_size = 100  # the service may return smaller pages (A5)
        self._first_page: int | None = None  # its number, read from the first list
        self._key = key
        self._is_owned = session is None
        self._session = session or requests.Session()
        # Sessions from before a fork stay referenced: collecting one takes locks that the fork may have left locked.
        self._inherited: list[requests.Session] = []
        self._timeout = timeout
        watch(self)

    def after_fork_in_child(self) -> None:
        self._inherited.append(self._session)
        self._session = requests.Session()

    def close(self) -> None:
        if self._is_owned:
            self._session.close()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the API key, as an ``auth`` callable: ``~/.netrc`` would override a header, and the session would keep one."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def send(self, method: str, path: Path, body: Fields | None = None, parameters: Fields | None = None) -> Fields:
        """Send a request and return the response. A write is retried only if it was certainly not done.

        After `UnansweredError` or `CorruptRecordError` a write may have been done; all other errors mean that it was not.
        """
        url = "/".join(["/api", *[quote(part, safe="") for part in path]])
        what, attempt = f"{method} {url}", 0
        while True:
            attempt += 1
            seconds = remaining(self._timeout) / 2
            if seconds < _LEAST:
                raise StoreUnavailableError(f"{what} to {self.host}: the timeout of {self._timeout:g} s has expired")
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
        """Yield the pages of a list, skipping the first ``skip`` pages; none are skipped while page numbers are unknown.

        Deleting an item moves later items to earlier pages, so if items are deleted during the iteration it starts again.
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
        """Return the page with this number, or the first page; record the service's page numbering and page size (A5)."""
        asked = parameters if number is None else {**parameters, "page": number}
        what = f"the list of {'/'.join(path)}"
        try:
            fields = self.send("GET", path, parameters={**asked, "page_size": self.page_size})
        except InvalidValueError:  # the size exceeds the service's maximum
            fields = self.send("GET", path, parameters=asked)
        items, pagination = member(fields, path[-1], list, what), member(fields, "pagination", dict, what)
        at, size, total = [whole(pagination, key, what) for key in ("page_number", "page_size", "total_count")]
        first = at if number is None or self._first_page is None else self._first_page
        begin = (at - first) * size
        end = begin + len(items)
        if (  # items missing from an inconsistent page would go unnoticed
            (at > 1 if number is None else at != number)
            or size < 1
            or (end > total if items else begin < total)
            or (end < total and len(items) < size)
            or (items and end == total and pagination.get("next_page") is not None)
        ):
            raise CorruptRecordError(f"{what} is inconsistent: it has {len(items)} items and says {pagination}"[:300])
        self._first_page, self.page_size = first, min(size, self.page_size)
        return Page(items, at, begin, end, total)

    def delete(self, *path: str) -> None:
        with suppress(MissingError):
            self.write_once(lambda: self.send("DELETE", path), None, f"the removal of {'/'.join(path)}")

    def write_once(self, send: Callable[[], T], find: Callable[[], T | None] | None, what: str) -> T:
        """Send a write and return its result. If the response is lost, look the result up, and send the write again if needed.

        ``find`` returns the result, or None if nothing was written. Pass None for it if the write is idempotent. After an attempt
        that may have been done, errors are `CommitInDoubtError`: the service may still do a request after the lookup.
        """
        doubt, attempt = "", 0
        while True:
            attempt += 1
            try:
                return send()
            except (UnansweredError, CorruptRecordError) as error:  # the response is missing or malformed
                doubt, wait = str(error), getattr(error, "wait", 0.0) or _delay(attempt)
                self.sleep(min(wait, remaining(self._timeout) / 2))
                with in_doubt_on_error(f"{doubt}; the check whether {what} was written failed"):
                    found = None if find is None else find()
                if found is not None:
                    return found
                if attempt >= self.attempts:
                    raise CommitInDoubtError(f"{doubt} ({attempt} times); {what} may still be written") from error
            except (StoreUnavailableError, ConfigurationError, InvalidValueError) as error:
                if not doubt:
                    raise
                raise CommitInDoubtError(f"{doubt}; retry: {error}. {what} may nevertheless be written") from error

    def _request(self, seconds: float, method: str, url: str, **options: Any) -> Fields:
        """Send one request and return the JSON object of the response."""
        if self._inherited and not self._is_owned:
            raise ConfigurationError(
                "this process was forked after the repository received its session: open the repository after the fork"
            )
        # Redirects are not followed: they would turn a POST into a GET, and send the key to another host.
        options |= {"auth": self, "headers": _HEADERS, "allow_redirects": False, "timeout": Timeout(total=seconds)}
        what = f"{method} {url}"
        try:
            response = self._session.request(method, self.host + url, **options)
        except Exception as error:
            _remove_key(error)
            raise _translate(error, self.host, what) from error
        response.request.headers.pop("Authorization", None)
        status, said = response.status_code, self._masked_body(response)
        if (is_refused := status == requests.codes.too_many_requests) or status >= requests.codes.internal_server_error:
            asked = response.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdecimal() else 0.0
            text = f"{self.host} answered {what} with {status}{f' (Retry-After: {wait:.0f} s)' if wait else ''}"
            raise UnansweredError(text, wait, may_be_done=not is_refused)
        if status >= requests.codes.multiple_choices:
            raise _refusal(status, said, self.host, what)
        if status == requests.codes.no_content:
            return {}
        try:
            fields = response.json(parse_constant=str)  # NaN, which is not valid JSON, becomes a string
        except requests.JSONDecodeError as error:
            raise UnansweredError(f"{self.host} answered {what} with a body that is not JSON{said}") from error
        except (ValueError, RecursionError) as error:  # a number with too many digits, or too deeply nested values
            raise CorruptRecordError(f"the response of {self.host} to {what} cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise UnansweredError(f"{self.host} answered {what} with JSON that is not an object")
        return fields

    def _masked_body(self, response: requests.Response) -> str:
        """Return the beginning of the response body, with the API key masked."""
        return f": {response.text.replace(self._key, '***')[:300]}" if response.text else ""


def _translate(error: Exception, host: str, what: str) -> PersistenceError:
    """Return our error for an exception that requests raised."""
    if isinstance(error, ValueError) or type(error) is OSError:  # an invalid address, proxy or certificate file
        return ConfigurationError(f"requests cannot send to {host}: {type(error).__name__}")
    reason = getattr(error.args[0], "reason", None) if error.args else None  # urllib3's error for the connection
    if _can_never_be_reached(reason):
        return ConfigurationError(f"{host} cannot be reached: {reason}"[:300])
    was_sent = not isinstance(reason, NewConnectionError | ConnectTimeoutError)
    return UnansweredError(f"{host} did not answer {what}: {reason or type(error).__name__}", may_be_done=was_sent)


def _can_never_be_reached(reason: object) -> bool:
    """Return whether a connection failed for a permanent reason: an unknown host, or an untrusted certificate."""
    cause = reason.__cause__ if isinstance(reason, NameResolutionError) else getattr(reason, "args", (None,))[0]
    return isinstance(cause, ssl.SSLCertVerificationError) or (cause is not None and is_unknown_host(cause))


def _refusal(status: int, said: str, host: str, what: str) -> PersistenceError:
    """Return the error for a response with a 3xx or 4xx status."""
    text = f"{host} answered {what} with {status}{said}"
    if status < requests.codes.bad_request or status in (401, 403, 407):
        return ConfigurationError(f"{text}; check the address of the service and the API key in {KEY_VARIABLE}")
    if status in (404, 410):
        return MissingError(text)
    if status == requests.codes.conflict:  # the alias exists, perhaps from an earlier attempt of the same write
        return UnansweredError(text)
    return InvalidValueError(f"{text}; nothing was written")


def _remove_key(error: BaseException) -> None:
    """Remove the API key from the requests and local variables that an exception references: error reports include them."""
    link: BaseException | None = error
    while link is not None:
        if (request := getattr(link, "request", None)) is not None:
            request.headers.pop("Authorization", None)
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _delay(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (attempt - 1))  # noqa: S311  # no secret


def member(fields: object, name: str, kind: Any, what: str) -> Any:
    """Return a member of a JSON object; raise `CorruptRecordError` if it is missing or has another type."""
    found = fields.get(name, ...) if isinstance(fields, dict) else ...
    if not isinstance(found, kind):
        raise CorruptRecordError(f"{what} has no {name} of type {kind}")
    return found


def whole(fields: object, name: str, what: str) -> int:
    """Return a count from a JSON object, which may be written as 3.0; raise `CorruptRecordError` if it is not one."""
    found = member(fields, name, int | float, what)
    if not 0 <= found < 2**53 or found % 1:
        raise CorruptRecordError(f"the {name} of {what} is not a whole number between 0 and 2**53")
    return int(found)
