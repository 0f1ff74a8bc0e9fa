"""A TCP proxy before a server that counts round trips, and cuts connections at a commit."""

import contextlib
import socket
from collections.abc import Callable
from threading import Lock, Thread
from typing import Literal, Self
from urllib.parse import urlsplit

_FLUSH = b"H\0\0\0\4"
"""PostgreSQL's: psycopg sends one at the end of a pipeline, also when the answers that it waits for are on their way already."""

Cut = Literal["before", "after", "never answers"]


class Proxy:
    """Passes everything on, to and from the server of a URL.

    Args:
        url: of the server, with its port.
        commits: tells whether what a client says is a commit.

    Attributes:
        url: of the proxy.
        cuts: what is to happen to the next commits, one after the other: the connection is cut ``"before"`` the server hears of
            it, or ``"after"`` it has answered, and the client has not heard of that; or the answer is kept back.
        round_trips: how often a client has spoken after the server had.
    """

    def __init__(self, url: str, commits: Callable[[bytes], bool]) -> None:
        server = urlsplit(url)
        assert server.hostname is not None
        assert server.port is not None
        self._server = (server.hostname, server.port)
        self.is_commit = commits
        self.cuts: list[Cut] = []
        self.round_trips = 0
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, at, _ = server.netloc.rpartition("@")
        self.url = server._replace(netloc=f"{user}{at}127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self._start(self._accept)

    def _start(self, job: Callable[[], None]) -> None:
        thread = Thread(target=job, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            pair = _Pair(self, client, server)
            self._start(pair.pass_on_questions)
            self._start(pair.pass_on_answers)

    def next_cut(self) -> Cut | None:
        with self._lock:
            return self.cuts.pop(0) if self.cuts else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            _close(one)
        for thread in self._threads:
            thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pair:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._server_spoke = True
        self._cut: Cut | None = None

    def pass_on_questions(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 20):
                if self._server_spoke and data != _FLUSH:
                    self._proxy.round_trips += 1
                    self._server_spoke = False
                if self._proxy.is_commit(data) and (cut := self._proxy.next_cut()):
                    self._cut = cut
                    if cut == "before":
                        break
                self._server.sendall(data)
        self._close()

    def pass_on_answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 20):
                self._server_spoke = True
                if self._cut == "never answers":
                    continue
                if self._cut == "after":
                    break
                self._client.sendall(data)
        self._close()

    def _close(self) -> None:
        for one in (self._client, self._server):
            _close(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
