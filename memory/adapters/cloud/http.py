"""Requests: one session, time-outs on everything, bounded retries that cannot write twice, and what each answer means."""

import email.utils
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from ssl import SSLCertVerificationError
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NameResolutionError, NewConnectionError

from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    StoreUnavailableError,
)

T = TypeVar("T")
KEY_VARIABLE: Final = "GT_CLOUD_API_KEY"
Fields: TypeAlias = dict[str, Any]

LONGEST_HANG: Final = 2
"""Time-outs, after which it is not tried again: a service that hangs is not to hold a caller for as many as `attempts`."""

_CONNECTIONS: Final = 32  # kept alive, for as many threads
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 3.0  # seconds
_NEVER_SENT: Final = (NewConnectionError, NameResolutionError, ConnectTimeoutError)
_OF_A_GATEWAY: Final = (requests.codes.bad_gateway, requests.codes.gateway_timeout)  # what it has passed on may go on


class MissingError(NotFoundError):
    """The service knows no such thread or message."""


class TakenError(AlreadyExistsError):
    """The service says 409: for a new thread, that its alias is taken."""


class UnansweredError(CommitInDoubtError):
    """A write was sent, and what came back does not tell whether it was done.

    ``wait`` is how many seconds the service asked to leave it alone; ``late`` says that it may still be done, later;
    ``hung``, that all of the time-out passed.
    """

    def __init__(self, message: str, wait: float = 0.0, *, late: bool = False, hung: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.late = late
        self.hung = hung


class _Bearer(AuthBase):
    """The key, as an ``auth``: a header would give way to an entry of ``~/.netrc``, and a session's stay with the session."""

    def __init__(self, key: str) -> None:
        self._value = f"Bearer {key}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request


class Http:
    """Sends requests to one host; knows nothing of threads and messages. Safe to use from several threads.

    Args:
        host: scheme, host and port, and the path before ``/api`` where there is one.
        key: of the service; it is in no repr, no log and no error.
        session: of the application's: its proxies, certificates and adapters are used, and it is not closed.
        timeout: seconds to wait for a connection, and for each part of an answer.
        attempts: how often a request is sent at most.
        patience: seconds that a ``Retry-After`` may ask for; if it asks for more, the store is unavailable at once.
    """

    def __init__(
        self,
        host: str,
        key: str,
        session: requests.Session | None,
        *,
        timeout: float,
        attempts: int,
        patience: float,
    ) -> None:
        self.host = host
        self.attempts = attempts
        self.sleep: Callable[[float], object] = time.sleep
        self._key = key
        self._auth = _Bearer(key)
        self._headers = {"User-Agent": f"conversation-memory/{_version()} {requests.utils.default_user_agent()}"}
        self._timeout = (min(timeout, 10.0), timeout)
        self._patience = patience
        self._owned = None if session else _new_session()
        self._session = session or self._owned or requests.Session()

    def __repr__(self) -> str:
        return f"<Http to {self.host}>"

    def close(self) -> None:
        """Close the connections, if they are not the application's."""
        if self._owned is not None:
            self._owned.close()

    def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> Fields:
        """Return what is there.

        Raises:
            MissingError: there is nothing.
            StoreUnavailableError: no attempt got an answer that can be read.
        """
        attempt = timed_out = 0
        while True:
            attempt += 1
            try:
                return self._once("GET", path, parameters, None) or {}
            except UnansweredError as error:
                timed_out += error.hung
                if attempt >= self.attempts or timed_out >= LONGEST_HANG:
                    raise StoreUnavailableError(f"{error} ({attempt} attempts)") from error.__cause__
                self.sleep(error.wait or self.delay(attempt - 1))

    def send(self, method: str, path: str, body: Fields | None = None) -> Fields:
        """Do something, once at most; return the answer, empty where there is none.

        It is sent again only where it certainly was not done: no connection, or 429.

        Raises:
            MissingError, TakenError, InvalidValueError, ConfigurationError: as the service says; nothing was written.
            StoreUnavailableError: nothing was written.
            UnansweredError: look whether it was done.
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
        doubt: UnansweredError | None = None  # of what may be done, as far as looking has shown
        failure, hung = UnansweredError(""), 0
        for attempt in range(self.attempts):
            answer = _sent(send, doubt, what)
            if not isinstance(answer, UnansweredError):
                return answer
            failure, hung = answer, hung + answer.hung
            if look is None or failure.late:
                doubt = failure
            if look is not None or attempt < self.attempts - 1:
                self.sleep(failure.wait or self.delay(attempt))
            found = None if look is None else _looked(look, failure, what)
            if found is not None:
                return found
            if hung >= LONGEST_HANG:
                break
        if doubt is not None:
            raise CommitInDoubtError(f"{doubt}; {what} may be written, or may still be") from doubt
        raise StoreUnavailableError(f"{failure}, {self.attempts} times; {what} is not written") from failure

    @staticmethod
    def delay(attempt: int) -> float:
        """Return how long to wait after so many attempts, with jitter."""
        longest: float = min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt)
        return random.uniform(0.5, 1.0) * longest  # noqa: S311  # jitter is no secret

    def _once(
        self, method: str, path: str, parameters: Mapping[str, str | int] | None, body: Fields | None
    ) -> Fields | None:
        why = ""
        for attempt in range(self.attempts):
            try:
                response = self._session.request(
                    method,
                    self.host + path,
                    params=parameters,
                    json=body,
                    headers=self._headers,
                    auth=self._auth,
                    timeout=self._timeout,
                    allow_redirects=False,  # a POST would arrive as a GET, and the key at another host
                )
            except requests.RequestException as error:
                wait, why = self._not_sent(error, f"{method} {path}"), "no connection could be made"
            else:
                if response.status_code != requests.codes.too_many_requests:
                    return self._read(response, f"{method} {path}")
                wait, why = self._asked_to_wait(response, f"{method} {path}"), "it is asked too often (429)"
            if attempt < self.attempts - 1:
                self.sleep(wait or self.delay(attempt))
        raise StoreUnavailableError(f"{self.host} did not take {method} {path} in {self.attempts} attempts: {why}")

    def _not_sent(self, error: requests.RequestException, what: str) -> float:
        """Return how long to wait where a failed request was certainly not received; raise where it may have been.

        The one place where exceptions of requests get their meaning, by their types.
        """
        if error.request is not None:
            error.request.headers.pop("Authorization", None)  # whoever reports the exception reports what hangs on it
        if isinstance(error, requests.exceptions.SSLError) and _has_cause(error, SSLCertVerificationError):
            raise ConfigurationError(
                f"the certificate of {self.host} cannot be verified: name your own authority in REQUESTS_CA_BUNDLE"
            ) from error
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            raise ConfigurationError(f"{self.host} is no address that requests can open") from error
        if isinstance(error, requests.ConnectionError) and _has_cause(error, *_NEVER_SENT):
            return 0.0
        hung = isinstance(error, requests.Timeout)
        late = isinstance(error, requests.ConnectionError | requests.Timeout)  # else an answer had begun
        raise UnansweredError(
            f"{self.host} gave no answer to {what}: {type(error).__name__}", late=late, hung=hung
        ) from error

    def _asked_to_wait(self, response: requests.Response, what: str) -> float:
        wait = _retry_after(response)
        if wait > self._patience:
            raise StoreUnavailableError(f"{self.host} asks to wait {wait:.0f} s before {what}; nothing was written")
        return wait

    def _read(self, response: requests.Response, what: str) -> Fields | None:
        status = response.status_code
        if status >= requests.codes.internal_server_error:
            wait = self._asked_to_wait(response, what) if response.request.method == "GET" else _retry_after(response)
            late = status in _OF_A_GATEWAY
            raise UnansweredError(f"{self.host} answered {what} with {status}", min(wait, self._patience), late=late)
        if status >= requests.codes.multiple_choices:
            self._refuse(response, what)
        if status == requests.codes.no_content:
            return None
        try:
            fields = response.json()
        except ValueError as error:
            kind = response.headers.get("Content-Type", "no type")
            raise UnansweredError(f"{self.host} answered {what} with {kind} that is no JSON") from error
        if not isinstance(fields, dict):
            raise UnansweredError(f"{self.host} answered {what} with JSON that is no object")
        return fields

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
        except (ValueError, LookupError, TypeError):
            return ""
        return f" ({'; '.join(messages)[:300].replace(self._key, '***')})" if messages else ""


def _sent(send: Callable[[], T], doubt: UnansweredError | None, what: str) -> T | UnansweredError:
    """Return the answer, or that there is none; whatever is said of another attempt does not tell of the one in doubt."""
    try:
        return send()
    except UnansweredError as error:
        return error
    except CorruptRecordError as error:  # answered, but not with what was to be written
        return UnansweredError(str(error))
    except (StoreUnavailableError, ConfigurationError) as error:
        if doubt is None:
            raise
        raise CommitInDoubtError(f"{doubt}; then {error}. {what} may be written all the same") from error


def _looked(look: Callable[[], T | None], failure: UnansweredError, what: str) -> T | None:
    """Return what looking finds after a failure."""
    try:
        with doubting(f"{failure}; whether {what} was written could not be found out"):
            return look()
    except ConflictError as error:
        if not failure.late:
            raise
        raise CommitInDoubtError(f"{failure}; then {error}. {what} may still be written") from error


@contextmanager
def doubting(told: str) -> Iterator[None]:
    """Raise `CommitInDoubtError` where a look within fails: after a write that does not mean that nothing was written."""
    try:
        yield
    except (StoreUnavailableError, ConfigurationError) as error:
        raise CommitInDoubtError(f"{told}: {error}") from error


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _has_cause(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Tell whether an exception of requests wraps one of these: urllib3 keeps it in ``reason``, requests in ``args``."""
    seen: list[object] = [error]
    for one in seen:
        if isinstance(one, kinds):
            return True
        if isinstance(one, BaseException):
            inner = [one.__cause__, *one.args, one.reason if isinstance(one, MaxRetryError) else None]
            seen += [each for each in inner if isinstance(each, BaseException) and each not in seen]
    return False


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


def part(fields: Fields, name: str, what: str) -> list[Any]:
    """Return the list of that name in an answer.

    Raises:
        CorruptRecordError: there is none.
    """
    found = fields.get(name)
    if not isinstance(found, list):
        raise CorruptRecordError(f"the answer to {what} has no list of {name}")
    return found
