"""What the tests of doubts have in common: faults by their meaning, and commits without a store's own retries."""

from collections.abc import Callable

from memory import Store
from memory.domain.values import now
from memory.port.changes import Change, ChangeSet, Written
from memory.testing.base import run
from tests.cloud_server import CloudServer, Fault, Request
from tests.cloud_server.faults import Plan, no_faults

LOST = Fault(kind="status", status=502, processed=True)
BUSY = Fault(kind="status", status=429, retry_after="3600")
AWAY = Fault(kind="status", status=503)
REFUSED = Fault(kind="status", status=422)


def appending(*texts: str, to: str = "a", after: int | None = None) -> ChangeSet:
    return ChangeSet.of([Change(to, after=after, append=tuple([run(text).to_record() for text in texts]))], now())


def append(store: Store, text: str, *, to: str = "a") -> None:
    with store.begin() as uow:
        uow.runs.append(to, run(text))


def written(store: Store, changes: ChangeSet) -> Written:
    found = store.repository.commit("default", changes).written["a"]
    assert found is not None
    return found


def no_looks_after(method: str) -> Plan:
    """Return a plan in which no look succeeds once a request of the method has come."""
    seen: list[str] = []

    def plan(request: Request) -> Fault | None:
        seen.append(request.method)
        return AWAY if request.method == "GET" and method in seen else None

    return plan


def meanwhile(server: CloudServer, work: Callable[[], object], method: str = "GET") -> Plan:
    """Return a plan in which somebody does something just before the first such request after a write."""
    seen: list[str] = []

    def plan(request: Request) -> Fault | None:
        if request.method == method and (method != "GET" or {"POST", "PATCH"} & set(seen)):
            server.plan = no_faults
            work()
        seen.append(request.method)
        return None

    return plan
