"""The service over HTTP: keys, JSON, and the faults in between."""

import json
import socket
import ssl
import struct
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.cloud_server.assumptions import Assumptions
from tests.cloud_server.faults import Fault, Plan, Request, no_faults
from tests.cloud_server.service import RefusedError, Service

KEYS = {"key-of-org-a": "org-a", "second-key-of-org-a": "org-a", "key-of-org-b": "org-b"}
CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Of 127.0.0.1, signed by itself, with its key: it protects nothing."""

_LONGEST_WAIT = 30.0  # seconds, of what nobody releases
_HTML = b"<html><body><h1>Gateway</h1></body></html>"


class CloudServer(ThreadingHTTPServer):
    """The test server, on a port of its own. `requests` holds what came in, `plan` what is to go wrong."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, assumptions: Assumptions | None = None, *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.service = Service(assumptions or Assumptions())
        self.plan: Plan = no_faults
        self.requests: list[Request] = []
        self.answers: list[tuple[Request, int, object]] = []
        self.connections = 0
        self.keeps_answers = False
        self.stopped = Event()
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """The scheme, host and port."""
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """As `memory.connect` takes it."""
        return f"griptape+{self.host}"

    @property
    def texts(self) -> list[list[str]]:
        """The inputs of each thread's messages, as the service has them."""
        return [[message.input for message in thread.messages] for thread in self.service.threads.values()]

    def stop(self) -> None:
        """End it, and whatever hangs."""
        self.stopped.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave alone a client that went away; anything else is a fault of this server's."""
        import sys

        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out as one piece
    disable_nagle_algorithm = True
    server: CloudServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        organization = KEYS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        body: Any = None
        malformed = False
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            malformed = True
        request = Request(self.command, self.path, organization, dict(self.headers), body)
        self.server.requests.append(request)
        fault = self.server.plan(request)
        if fault is not None and self._fails_before(fault):
            return
        status, answer = self._answer(request, malformed=malformed)
        if self.server.keeps_answers:
            self.server.answers.append((request, status, answer))
        self._send(status, b"" if answer is None else json.dumps(answer).encode(), fault)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = do_TRACE = do_QUERY = _any  # noqa: N815

    def _answer(self, request: Request, *, malformed: bool) -> tuple[int, object]:
        try:
            answer = self._work(request, malformed=malformed)
        except RefusedError as refused:
            return refused.status, {"type": "error", "errors": [{"message": str(refused), "type": "error"}]}
        return 204 if answer is None else 201 if request.method == "POST" else 200, answer

    def _work(self, request: Request, *, malformed: bool) -> object:
        parts = urlsplit(request.path)
        path = [unquote(part) for part in parts.path.split("/")[1:]]
        if request.organization is None:
            raise RefusedError(401, "no such key")
        if malformed:
            raise RefusedError(400, "the body is no JSON")
        if path[0] != "api":
            raise RefusedError(404, "every path begins with /api")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return self.server.service.answer(request.organization, request.method, path[1:], query, request.body)

    def _fails_before(self, fault: Fault) -> bool:
        """Do what goes wrong before the work; tell whether that is all."""
        if fault.kind == "latency":
            time.sleep(fault.seconds)
            return False
        if fault.kind == "late":
            fault.released.wait(_LONGEST_WAIT)
            return False
        if fault.processed:
            return False
        if fault.kind == "reset":
            self._reset()
        elif fault.kind == "hang":
            self.server.stopped.wait(fault.seconds)
            self.close_connection = True
        elif fault.kind == "status":
            self._write(fault.status, b'{"type":"error","errors":[]}', "application/json", fault.retry_after)
        else:  # an answer that cannot be read, with nothing done
            self._write_unreadable(fault)
        return True

    def _send(self, status: int, body: bytes, fault: Fault | None) -> None:
        if fault is None or fault.kind == "latency":
            self._write(status, body, "application/json")
        elif fault.kind == "reset":
            self._reset()
        elif fault.kind == "hang":
            self.server.stopped.wait(fault.seconds)
            self.close_connection = True
        elif fault.kind == "late":
            self.close_connection = True
            fault.done.set()
        elif fault.kind == "status":
            self._write(fault.status, b'{"type":"error","errors":[]}', "application/json", fault.retry_after)
        else:
            self._write_unreadable(fault, status, body)

    def _write_unreadable(self, fault: Fault, status: int = 200, body: bytes = b'{"threads": [], "pagi') -> None:
        if fault.kind == "html":
            self._write(200, _HTML, "text/html")
            return
        self._write(status, body[: len(body) // 2], "application/json", length=len(body))
        self.close_connection = True

    def _write(
        self, status: int, body: bytes, kind: str, retry_after: str | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if length is None else length))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
