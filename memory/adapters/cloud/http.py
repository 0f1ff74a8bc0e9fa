"""Requests: bounded retries that cannot write twice, and what each answer, or none, means."""

import email.utils
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from ssl import SSLCertVerificationError
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from memory.adapters.cloud.session import Session
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
    StoreUnavailableError,
)
from memory.port.deadlines import remaining

T = TypeVar("T")
KEY_VARIABLE: Final = "GT_CLOUD_API_KEY"
Fields: TypeAlias = dict[str, Any]

_LEAST: Final = 0.02  # seconds that a request needs to be worth sending
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 3.0  # seconds
_NEVER_SENT: Final = (NewConnectionError, NameResolutionError, ConnectTimeoutError)
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_OF_A_GATEWAY: Final = (requests.codes.bad_gateway, requests.codes.gateway_timeout)  # what it has passed on may go on


class MissingError(NotFoundError):
    """The service knows no such thread or message."""


class TakenError(AlreadyExistsError):
    """The service says 409: for a new thread, that its alias is taken."""


class UnansweredError(CommitInDoubtError):
    """A write was sent, and what came back does not tell whether it was done.

    ``wait`` is how many seconds the service asked to leave it alone; ``late`` says that it may still be done, later.
    """

    def __init__(self, message: str, wait: float = 0.0, *, late: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.late = late


class Http:
    """Sends requests to one host; knows nothing of threads and messages. Safe to use from several threads.

    A request may take half of the time that its operation has left: the other half is for a look, or another attempt.

    Args:
        host: scheme, host and port, and the path before ``/api`` where there is one.
        key: of the service; it is in no repr, no log and no error.
        session: of the application's: its proxies, certificates and adapters are used, and it is not closed.
        timeout: seconds for whatever no deadline limits.
        attempts: how often a request is sent at most.
    """

    def __init__(self, host: str, key: str, session: requests.Session | None, *, timeout: float, attempts: int) -> None:
        self.host = host
        self.timeout = timeout
        self.attempts = attempts
        self.sleep: Callable[[float], object] = time.sleep
        self._key = key
        self._headers = {"User-Agent": f"conversation-memory/{_version()} {requests.utils.default_user_agent()}"}
        self._session = Session(session, key)

    def __repr__(self) -> str:
        return f"<Http to {self.host}>"

    def close(self) -> None:
        """Close the connections, if they are not the application's."""
        self._session.close()

    def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> Fields:
        """Return what is there.

        Raises:
            MissingError: there is nothing.
            CorruptRecordError: it cannot be read.
            StoreUnavailableError: no attempt got an answer.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._once("GET", path, parameters, None) or {}
            except UnansweredError as error:
                if attempt >= self.attempts or not self._pause(error.wait, attempt - 1):
                    raise StoreUnavailableError(f"{error} ({attempt} attempts)") from error.__cause__

    def send(self, method: str, path: str, body: Fields | None = None) -> Fields:
        """Do something, once at most; return the answer, empty where there is none.

        It is sent again only where it certainly was not done: no connection, or 429.

        Raises:
            MissingError, TakenError, InvalidValueError, ConfigurationError: as the service says; nothing was written.
            StoreUnavailableError: nothing was written.
            UnansweredError, CorruptRecordError: look whether it was done.
        """
        return self._once(method, path, None, body) or {}

    def surely(self, send: Callable[[], T], look: Callable[[], T | None] | None, what: str) -> T:
        """Return what sending returns; where that is not known, what looking finds, or what sending again returns.

        The one place that decides what is told of a write that got no answer: from then on nothing that goes wrong is told as
        if nothing were written, unless looking has shown that.

        Args:
            send: makes the request, once.
            look: returns what was done, None if it was not; None: it may be done twice, and is sent again unseen.
            what: is written, in words.

        Raises:
            CommitInDoubtError: it may have been done, or may still be.
            StoreUnavailableError: it was not done.
        """
        doubt = ""  # what is said of an attempt that may be done, as far as looking has shown; no exception: it would be a cycle
        attempt = 0
        while True:
            attempt += 1
            try:
                return send()
            except (UnansweredError, CorruptRecordError) as error:  # the latter: answered, with something else
                wait, late = (error.wait, error.late) if isinstance(error, UnansweredError) else (0.0, False)
                if look is None or late:
                    doubt = str(error)
                self.sleep(min(wait or self.delay(attempt - 1), remaining(self.timeout) / 2))
                found = None if look is None else _looked(look, str(error), what, late=late)
                if found is not None:
                    return found
                if attempt >= self.attempts:
                    raise _given_up(doubt, f"{error}, {attempt} times", what) from error
            except (StoreUnavailableError, ConfigurationError, InvalidValueError) as error:
                if not doubt:
                    raise
                raise CommitInDoubtError(f"{doubt}; then {error}. {what} may be written all the same") from error

    def _pause(self, wait: float, attempt: int) -> bool:
        """Wait before another attempt; tell whether there is time for one."""
        wait = wait or self.delay(attempt)
        if wait >= remaining(self.timeout):
            return False
        self.sleep(wait)
        return True

    @staticmethod
    def delay(attempt: int) -> float:
        """Return how long to wait after so many attempts, with jitter."""
        longest: float = min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt)
        return random.uniform(0.5, 1.0) * longest  # noqa: S311  # jitter is no secret

    def _once(
        self, method: str, path: str, parameters: Mapping[str, str | int] | None, body: Fields | None
    ) -> Fields | None:
        what, why = f"{method} {path}", ""
        for attempt in range(self.attempts):
            seconds = remaining(self.timeout) / 2
            if seconds < _LEAST:
                why = why or f"the operation took longer than {self.timeout:g} s"
                break
            try:
                response = self._session.request(
                    seconds,
                    method,
                    self.host + path,
                    params=parameters,
                    json=body,
                    headers=self._headers,
                    allow_redirects=False,  # a POST would arrive as a GET, and the key at another host
                )
            except PersistenceError:
                raise
            except Exception as error:  # noqa: BLE001  # a session of the application's may raise anything
                self._check_unsent(error, what)
                wait, why = 0.0, "no connection could be made"
            else:
                if response.status_code != requests.codes.too_many_requests:
                    return self._read(response, what)
                wait = _retry_after(response)
                why = f"it is asked too often (429){_words_of_a_wait(wait)}"
            if attempt < self.attempts - 1 and not self._pause(wait, attempt):
                break
        raise StoreUnavailableError(f"{self.host} did not take {what} in {attempt + 1} attempts: {why}")

    def _check_unsent(self, error: Exception, what: str) -> None:
        """Raise what a failed request means, unless it certainly was not received.

        The one place where exceptions of requests get their meaning, by their types.
        """
        causes = set(map(type, _causes(error)))
        if SSLCertVerificationError in causes:
            raise ConfigurationError(
                f"the certificate of {self.host} cannot be verified: name your own authority in REQUESTS_CA_BUNDLE"
            ) from error
        if isinstance(error, requests.exceptions.InvalidJSONError):
            raise InvalidValueError(f"{what} has a value that is no JSON (NaN, say); nothing was written") from error
        if isinstance(error, ValueError | HTTPError) or type(error) is OSError:
            # an address, a proxy or a file of certificates: requests wraps whatever comes after it has begun to send
            raise ConfigurationError(f"requests cannot send to {self.host}: {type(error).__name__}") from error
        if any(isinstance(one, socket.gaierror) and one.errno in _NO_SUCH_HOST for one in _causes(error)):
            raise ConfigurationError(f"there is no host of the name in {self.host}, or of its proxy's") from error
        if isinstance(error, requests.ConnectionError) and causes.intersection(_NEVER_SENT):
            return
        late = not isinstance(error, requests.exceptions.ChunkedEncodingError)  # else an answer had begun
        raise UnansweredError(f"{self.host} gave no answer to {what}: {type(error).__name__}", late=late) from error

    def _read(self, response: requests.Response, what: str) -> Fields | None:
        status = response.status_code
        if status >= requests.codes.internal_server_error:
            wait = _retry_after(response)
            late = status in _OF_A_GATEWAY
            raise UnansweredError(f"{self.host} answered {what} with {status}{_words_of_a_wait(wait)}", wait, late=late)
        if status >= requests.codes.multiple_choices:
            self._refuse(response, what)
        if status == requests.codes.no_content:
            return None
        try:
            fields = response.json()
        except requests.JSONDecodeError as error:
            kind = self._masked(response.headers.get("Content-Type", "no type"))
            raise UnansweredError(f"{self.host} answered {what} with {kind} that is no JSON") from error
        except (ValueError, RecursionError) as error:  # too many digits, or too deep
            raise CorruptRecordError(f"the answer of {self.host} to {what} cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise UnansweredError(f"{self.host} answered {what} with JSON that is no object")
        return fields

    def _masked(self, text: str) -> str:
        """Return something that the service said, without the key."""
        return text.replace(self._key, "***")[:300]

    def _refuse(self, response: requests.Response, what: str) -> NoReturn:
        """Raise what a status of 3xx or 4xx means."""
        status, said = response.status_code, self._words(response)
        if status in (401, 403, 407):
            raise ConfigurationError(
                f"{self.host} refused the API key with {status}{said}: set {KEY_VARIABLE} to a key that is valid there"
            )
        if status < requests.codes.bad_request:
            raise ConfigurationError(f"{self.host} redirects {what} ({status}): connect to the address it redirects to")
        if status in (404, 410):
            raise MissingError(f"{self.host} knows nothing of {what}{said}")
        if status == requests.codes.conflict:
            raise TakenError(f"{self.host} says that there is one already: {what}{said}")
        raise InvalidValueError(f"{self.host} refused {what} with {status}{said}; nothing was written")

    def _words(self, response: requests.Response) -> str:
        """Return what the service says of an error, if it says anything."""
        try:
            messages = [str(error["message"]) for error in response.json()["errors"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return f" ({self._masked('; '.join(messages))})" if messages else ""


def _given_up(doubt: str, failure: str, what: str) -> PersistenceError:
    if doubt:
        return CommitInDoubtError(f"{doubt}; {what} may be written, or may still be")
    return StoreUnavailableError(f"{failure}; {what} is not written")


def _looked(look: Callable[[], T | None], failure: str, what: str, *, late: bool) -> T | None:
    """Return what looking finds after a failure."""
    try:
        with doubting(f"{failure}; whether {what} was written could not be found out"):
            return look()
    except ConflictError as error:
        if not late:
            raise
        raise CommitInDoubtError(f"{failure}; then {error}. {what} may still be written") from error


@contextmanager
def doubting(told: str) -> Iterator[None]:
    """Raise `CommitInDoubtError` where a look within fails: after a write that does not mean that nothing was written."""
    try:
        yield
    except (StoreUnavailableError, ConfigurationError, CorruptRecordError, InvalidValueError) as error:
        raise CommitInDoubtError(f"{told}: {error}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception of requests and what it wraps: urllib3 keeps that in ``reason``, requests in ``args``."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            inner = [one.__cause__, *one.args, getattr(one, "reason", None)]
            waiting += [each for each in inner if isinstance(each, BaseException)]


def _words_of_a_wait(seconds: float) -> str:
    return f", and asks to wait {seconds:.0f} s" if seconds else ""


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that the service asks to wait, 0 if it does not: a number, or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _version() -> str:
    try:
        return version("conversation-memory")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def member(fields: Fields, name: str, kind: type[T], what: str) -> T:
    """Return a member of an answer.

    Raises:
        CorruptRecordError: there is none of that type.
    """
    found = fields.get(name)
    if not isinstance(found, kind):
        raise CorruptRecordError(f"{what} has no {name}, or one of another type than {kind.__name__}")
    return found


def whole(fields: Fields, name: str, what: str) -> int:
    """Return a count of an answer, which may be written as 3.0.

    Raises:
        CorruptRecordError: there is none.
    """
    found: Any = fields.get(name)
    if type(found) not in (int, float) or not 0 <= found < 2**53 or found != int(found):
        raise CorruptRecordError(f"{what} has no {name} that is a whole number")
    return int(found)
