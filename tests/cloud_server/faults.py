"""What can go wrong between a client and the service, on demand."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "latency",  # it takes a while
    "status",  # an error answer; `processed` says whether the work is done all the same
    "reset",  # the connection is cut, before or after the work
    "truncated",  # the body ends too early
    "html",  # a proxy's page instead of JSON, with status 200
    "hang",  # no answer at all
    "late",  # no answer, and the work is done when `released` is set; then `done` is
]
SEEN_BY_RETRIES: tuple[Kind, ...] = ("status", "reset", "truncated", "html")


class Request(NamedTuple):
    """What came in."""

    method: str
    path: str
    organization: str | None
    headers: dict[str, str]
    body: object


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request."""

    kind: Kind
    processed: bool = False
    status: int = 503
    retry_after: str | None = None
    seconds: float = 0.0
    released: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)


Plan: TypeAlias = Callable[[Request], Fault | None]


def no_faults(_: Request) -> Fault | None:
    """Let everything go well."""
    return None


def once(fault: Fault, method: str = "", path_ends: str = "") -> Plan:
    """Return a plan of one fault, at the first request that fits."""
    return in_turn([fault], method, path_ends)


def in_turn(faults: Sequence[Fault | None], method: str = "", path_ends: str = "") -> Plan:
    """Return a plan of faults for the first requests that fit, one each."""
    left, lock = list(faults), Lock()

    def plan(request: Request) -> Fault | None:
        with lock:
            fits = request.method.startswith(method) and request.path.partition("?")[0].endswith(path_ends)
            return left.pop(0) if fits and left else None

    return plan


def always(fault: Fault, method: str = "", path_ends: str = "") -> Plan:
    """Return a plan of the same fault at every request that fits."""

    def plan(request: Request) -> Fault | None:
        fits = request.method.startswith(method) and request.path.partition("?")[0].endswith(path_ends)
        return fault if fits else None

    return plan


def at_random(share: float, method: str, seed: int, faults: Sequence[Fault]) -> Plan:
    """Return a plan in which such a share of the requests of a method fail, in any of these ways."""
    chance, lock = random.Random(seed), Lock()

    def plan(request: Request) -> Fault | None:
        with lock:
            return chance.choice(faults) if request.method == method and chance.random() < share else None

    return plan
