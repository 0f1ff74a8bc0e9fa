"""No operation takes longer than its time-out, whatever the service does: `?timeout=`, for all requests and waits together."""

import gc
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, get_ident

import pytest

from memory import CommitInDoubtError, PersistenceError, Store, StoreUnavailableError, where
from memory.adapters.cloud import GriptapeCloudRepository
from memory.domain.values import new_id
from memory.port.changes import Change, ChangeSet
from memory.port.repository import Repository, Window
from memory.testing.base import put, read_runs, run
from tests.adapters.cloud.troubles import append, appending
from tests.cloud_server import CloudServer, Fault, Request
from tests.cloud_server.faults import always, no_faults

LIMIT, A_MOMENT = 0.5, 1.0  # seconds

OPERATIONS: dict[str, Callable[[Repository], object]] = {
    "get": lambda one: one.get("default", "a"),
    "find": lambda one: Store(one).begin().conversations.find(),
    "count": lambda one: Store(one).begin().conversations.count(where("n") == 1),
    "runs": lambda one: one.runs("default", "a", Window()),
    "append": lambda one: one.commit("default", appending("2")),
    "edit": lambda one: one.commit("default", ChangeSet.of([Change("a", metadata='{"n":2}')], 0)),
    "remove runs": lambda one: one.commit("default", ChangeSet.of([Change("a", remove_runs=(1,))], 0)),
    "remove": lambda one: one.commit("default", ChangeSet.of([Change("a", remove=True)], 0)),
    "create": lambda one: put(Store(one), new_id(), None, run()),
}
MISBEHAVIOURS = {
    "hangs": Fault(kind="hang", seconds=10),
    "is late": Fault(kind="latency", seconds=LIMIT * 0.8),
    "asks to wait": Fault(kind="status", status=429, retry_after="3600"),
    "fails and asks to wait": Fault(kind="status", status=503, retry_after="3600"),
    "is away": Fault(kind="status", status=504),
}


@contextmanager
def bounded() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < LIMIT + A_MOMENT


@pytest.fixture
def limited(cloud_server: CloudServer) -> Iterator[GriptapeCloudRepository]:
    repository = GriptapeCloudRepository(cloud_server.host, "key-of-org-a", timeout=LIMIT)
    put(Store(repository), "a", {"n": 1}, run("1"))
    yield repository
    repository.close()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_a_service_that_misbehaves(
    limited: GriptapeCloudRepository, cloud_server: CloudServer, how: str, operation: str
) -> None:
    cloud_server.plan = always(MISBEHAVIOURS[how])
    with bounded(), pytest.raises((StoreUnavailableError, CommitInDoubtError)):
        OPERATIONS[operation](limited)
    cloud_server.plan = no_faults


def test_an_interrupt_leaves_as_itself_and_no_connection_half_read(
    limited: GriptapeCloudRepository, cloud_server: CloudServer
) -> None:
    store, entered = Store(limited), Event()
    limited.timeout = 10
    fault = Fault(kind="late")

    def plan(request: Request) -> Fault | None:
        if request.method != "POST":
            return None
        entered.set()
        return fault

    cloud_server.plan = plan

    def interrupts(thread: int = get_ident()) -> None:
        if entered.wait(10):
            signal.pthread_kill(thread, signal.SIGINT)

    interrupt = Thread(target=interrupts)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            append(store, "2")
    finally:
        signal.signal(signal.SIGINT, before)
    cloud_server.plan = no_faults
    interrupt.join()
    fault.released.set()
    assert fault.done.wait(10)
    assert [one.input for one in read_runs(store, "a")] == ["1", "2"]


def error_left_by(work: Callable[[], object]) -> PersistenceError | None:
    """Return the error that this raises, if it outlives its handling where no garbage is collected."""
    gc.disable()
    error_of: list[weakref.ref[PersistenceError]] = []
    try:
        try:
            work()
        except PersistenceError as error:
            error_of.append(weakref.ref(error))
        (left,) = error_of
        return left()
    finally:
        gc.enable()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", [Fault(kind="reset"), Fault(kind="status", status=503), Fault(kind="html")])
def test_an_error_is_in_no_reference_cycle(
    repository: GriptapeCloudRepository, cloud_server: CloudServer, operation: str, fault: Fault
) -> None:
    put(Store(repository), "a", {"n": 1}, run("1"))
    cloud_server.plan = always(fault)
    assert error_left_by(lambda: OPERATIONS[operation](repository)) is None


def test_a_refused_commit_is_in_no_reference_cycle(repository: GriptapeCloudRepository) -> None:
    assert error_left_by(lambda: repository.commit("default", appending("1", to="missing"))) is None
