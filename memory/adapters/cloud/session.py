"""One `requests.Session`: bounded in time, safe across a fork, and leaving the key in nothing that is raised."""

import traceback
from collections.abc import Callable
from contextvars import copy_context
from copy import copy
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.cookies import RequestsCookieJar

from memory.errors import ConfigurationError, StoreUnavailableError
from memory.port.forking import ForkAware, watch

_CONNECTIONS: Final = 32  # kept alive, for as many threads
_LONGEST_CONNECT: Final = 10.0  # seconds
_GRACE: Final = 1.2  # for requests to end by its own time-out, which tells more


class Session(ForkAware):
    """Sends requests through the application's session, or one of its own.

    Args:
        session: the application's: its proxies, certificates and adapters are used, and it is not closed.
        key: sent as the bearer token.
    """

    def __init__(self, session: requests.Session | None, key: str) -> None:
        self._is_owned = session is None
        self._session = _new_session() if session is None else session
        self._auth = _Bearer(key)
        self._inherited: list[object] = []
        self._is_shared = False
        watch(self)

    def after_fork_in_child(self) -> None:
        """Mount copies of the adapters: a copy has the same settings, and connections and locks of its own.

        The old ones are kept: collecting them takes locks that another thread may have held at the fork.
        """
        session = self._session
        kinds = {type(one) for one in session.adapters.values()}
        self._is_shared = kinds != {HTTPAdapter} or type(session.cookies) is not RequestsCookieJar
        if self._is_shared:  # nobody knows what a copy of another kind has in common with it
            return
        self._inherited += [session.cookies, *session.adapters.values()]
        session.cookies = copy(session.cookies)
        for prefix, adapter in list(session.adapters.items()):
            session.mount(prefix, copy(adapter))

    def request(self, seconds: float, method: str, url: str, **options: Any) -> requests.Response:
        """Send one request; return its answer, read completely.

        A thread of its own sends it, because a time-out of requests bounds each read of a socket only: not a name that is not
        resolved, nor an answer that comes byte by byte. Nor does an interrupt leave a connection half read.

        Raises:
            requests.RequestException, OSError, ValueError, urllib3.exceptions.HTTPError: it failed.
            requests.Timeout: it took longer.
            ConfigurationError: a session of the application's that another process uses too.
        """
        if self._is_shared:
            raise ConfigurationError(
                "this process was forked while its parent had the repository open with a session that cannot be copied "
                "(it has adapters or cookies of its own kind): open the repository, with a new session, after the fork"
            )
        timeout = (min(seconds, _LONGEST_CONNECT), seconds)
        send = partial(self._session.request, method, url, auth=self._auth, timeout=timeout, **options)
        outcomes: SimpleQueue[requests.Response | BaseException] = SimpleQueue()
        try:
            Thread(target=copy_context().run, args=(_send, send, outcomes), daemon=True).start()
        except RuntimeError as error:
            raise StoreUnavailableError(f"{method} {url} was not sent: {error}") from error
        try:
            outcome = outcomes.get(timeout=seconds * _GRACE)
        except Empty:
            raise requests.Timeout(f"no complete answer within {seconds:.3g} s") from None
        if isinstance(outcome, BaseException):
            try:
                raise outcome
            finally:
                del outcome  # else its traceback would refer to itself
        return outcome

    def close(self) -> None:
        """Close the connections, if they are not the application's."""
        if self._is_owned:
            self._session.close()


class _Bearer(AuthBase):
    """The key, as an ``auth``: a header would give way to an entry of ``~/.netrc``, and a session's stay with the session."""

    def __init__(self, key: str) -> None:
        self._value = f"Bearer {key}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request


def _send(send: Callable[[], requests.Response], outcomes: "SimpleQueue[requests.Response | BaseException]") -> None:
    try:
        response = send()
        response.request.headers.pop("Authorization", None)  # who reports an error reports what hangs on it
        outcomes.put(response)
    except BaseException as error:  # noqa: BLE001  # raised again by who waits for it
        _scrub(error)
        outcomes.put(error)


def _scrub(error: BaseException) -> None:
    """Remove the key from an exception: from its request, and from the local variables of the code that sent it."""
    request = getattr(error, "request", None)
    if request is not None:
        request.headers.pop("Authorization", None)
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
