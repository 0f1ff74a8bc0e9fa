"""A TCP proxy before PostgreSQL that counts round trips, and cuts connections at a commit."""

import contextlib
import socket
from threading import Lock, Thread
from typing import Literal, Self

from sqlalchemy.engine import make_url

Cut = Literal["before", "after"]


class Proxy:
    """Passes everything on, to and from the server of a URL.

    Attributes:
        cuts: what is to happen to the next commits, one after the other: the connection is cut ``"before"`` the server hears of
            it, or ``"after"`` it has answered, and the client has not heard of that.
        round_trips: how often a client has spoken after the server had.
    """

    def __init__(self, url: str) -> None:
        server = make_url(url)
        self._server = (server.host or "127.0.0.1", server.port or 5432)
        self.cuts: list[Cut] = []
        self.round_trips = 0
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server.set(host="127.0.0.1", port=self._listener.getsockname()[1]).render_as_string(
            hide_password=False
        )
        self._start(self._accept)

    def _start(self, job: object, *arguments: object) -> None:
        thread = Thread(target=job, args=arguments, daemon=True)  # type: ignore[arg-type]  # callables, all of them
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
            pair = _Pair(self, client, server)
            with self._lock:
                self._sockets += [client, server]
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
        self._cut_answer = False

    def pass_on_questions(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 20):
                if self._server_spoke:
                    self._proxy.round_trips += 1
                    self._server_spoke = False
                if b"COMMIT\0" in data:
                    cut = self._proxy.next_cut()
                    if cut == "before":
                        break
                    self._cut_answer = cut == "after"
                self._server.sendall(data)
        self._close()

    def pass_on_answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 20):
                self._server_spoke = True
                if self._cut_answer:
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
