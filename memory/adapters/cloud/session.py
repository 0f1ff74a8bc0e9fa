"""One `requests.Session`: bounded in time, safe across a fork, and with the key in nothing that it raises."""

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

from memory.adapters.cloud.errors import UnansweredError, meaning_of
from memory.errors import ConfigurationError, StoreUnavailableError
from memory.port.forking import ForkAware, watch

_CONNECTIONS: Final = 32  # kept alive, for as many threads
_LONGEST_CONNECT: Final = 10.0  # seconds
_GRACE: Final = 1.2  # lets requests end by its own time-out, whose exception says more
_HEADERS: Final = {"User-Agent": f"conversation-memory ({requests.utils.default_user_agent()})"}


class Session(ForkAware):
    """Sends requests through the application's session, which stays open, or through one of its own; ``key`` is the API key.

    The key is an ``auth``: ``~/.netrc`` would replace a header, and a header of the session would stay in it.
    """

    def __init__(self, session: requests.Session | None, key: str) -> None:
        self._is_owned = session is None
        self._session = requests.Session() if session is None else session
        for prefix in ("https://", "http://") if session is None else ():
            self._session.mount(prefix, HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))
        self._key = key
        self._inherited: list[object] = []  # never collected: that takes locks that may have been held at the fork
        self._is_shared = False
        watch(self)

    def after_fork_in_child(self) -> None:
        """Mount copies of the adapters: a copy has the same settings, and connections and locks of its own."""
        session = self._session
        self._is_shared = any(type(one) is not HTTPAdapter for one in session.adapters.values())
        self._inherited += [session.cookies, *session.adapters.values()]
        session.cookies = copy(session.cookies)
        for prefix, adapter in list(session.adapters.items()):
            session.mount(prefix, copy(adapter))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def request(self, seconds: float, method: str, host: str, path: str, **options: Any) -> requests.Response:
        """Send one request; return its answer, read completely. Raises what `meaning_of` makes of an exception of requests.

        A thread of its own sends it: a time-out of requests bounds each read of a socket only, neither a slow name server nor
        an answer that comes byte by byte; and an interrupt leaves no connection half read.
        """
        if self._is_shared:
            raise ConfigurationError(
                "this process was forked while its parent had the repository open with a session whose adapters cannot be "
                "copied, being of their own kind: open the repository, with a new session, after the fork"
            )
        # Redirects are not followed: a POST would arrive as a GET, and the key at another host.
        options |= {"auth": self, "headers": _HEADERS, "allow_redirects": False}
        options["timeout"] = (min(seconds, _LONGEST_CONNECT), seconds)
        send = partial(self._session.request, method, host + path, **options)
        outcomes: SimpleQueue[requests.Response | BaseException] = SimpleQueue()
        try:
            Thread(target=copy_context().run, args=(_send, send, outcomes), daemon=True).start()
        except RuntimeError as error:
            raise StoreUnavailableError(f"{method} {path} was not sent to {host}: {error}") from error
        try:
            outcome = outcomes.get(timeout=seconds * _GRACE)
        except Empty:
            raise UnansweredError(f"{host} did not answer {method} {path} within {seconds:.3g} s") from None
        if isinstance(outcome, BaseException):
            try:
                raise meaning_of(outcome, host, f"{method} {path}") from outcome
            finally:
                del outcome  # otherwise its traceback refers to itself
        return outcome

    def masked(self, text: str) -> str:
        """Return words of the service without the key, and not too many of them."""
        return text.replace(self._key, "***")[:300]

    def close(self) -> None:
        if self._is_owned:
            self._session.close()


def _send(send: Callable[[], requests.Response], outcomes: "SimpleQueue[requests.Response | BaseException]") -> None:
    """Send a request, and remove the key from what is left of it: reports of errors include what an error refers to."""
    try:
        response = send()
        response.request.headers.pop("Authorization", None)
        outcomes.put(response)
    except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for it
        if (request := getattr(error, "request", None)) is not None:
            request.headers.pop("Authorization", None)
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)  # local variables of the code that sent it
            link = link.__cause__ or link.__context__
        outcomes.put(error)
