"""Real servers for the tests, started by the test run itself.

Each server is looked for in this order: the address that the environment gives, a container if a Docker engine answers,
the programs that come in packages of the `test` extra. A test never skips because there is none: what was tried, and
why it failed, is the error.
"""

import importlib.util
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ServerError(Exception):
    """A server that a test needs could not be had."""


class Server(Protocol):
    """Something that answers at a URL until it is stopped."""

    @property
    def url(self) -> str: ...

    def stop(self) -> None: ...


class KillableServer(Server, Protocol):
    """A server of our own: `kill` is SIGKILL, and `restart` brings it back at its address, with what it had on disk."""

    def kill(self) -> None: ...

    def restart(self) -> None: ...


@dataclass(frozen=True)
class GivenServer:
    """A server that somebody else runs: `stop` leaves it alone."""

    url: str

    def stop(self) -> None:
        pass


def given(variable: str, answers: Callable[[str], object]) -> GivenServer | None:
    """Return the server whose URL the environment names, if it names one; then no other will do."""
    url = os.environ.get(variable)
    if not url:
        return None
    try:
        answers(url)
    except Exception as error:
        raise ServerError(f"the server that {variable} names does not answer: {error}") from error
    return GivenServer(url)


def first_that_starts(name: str, **ways: Callable[[], KillableServer]) -> KillableServer:
    """Return the server of the first way that works."""
    failures: list[Exception] = []
    for way in ways.values():
        try:
            return way()
        except Exception as error:  # noqa: BLE001 - drivers, Docker and the system each fail in their own way; all is told
            failures.append(error)
    tried = "".join(f"\n  {way}: {error!r}" for way, error in zip(ways, failures, strict=True))
    causes = ExceptionGroup(f"the ways to start {name}", failures)
    raise ServerError(f"{name} could not be started (--without {name} leaves out its tests):{tried}") from causes


def wait_until(answers: Callable[[], object], *, still_possible: Callable[[], object], seconds: float = 30) -> None:
    """Return as soon as `answers` does not raise; `still_possible` raises when waiting on is pointless."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answers()
        except Exception as error:
            still_possible()
            if time.monotonic() > deadline:
                raise ServerError(f"no answer within {seconds:g} s: {error}") from error
            time.sleep(0.02)
        else:
            return


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def package_folder(name: str) -> Path:
    """Return where a package of the `test` extra is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"the package {name} is not installed: pip install 'conversation-memory[test]'")
    return Path(spec.submodule_search_locations[0])
