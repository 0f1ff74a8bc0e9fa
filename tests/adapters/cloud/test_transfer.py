"""Conversations come from other stores, and go there, as they are: positions, versions and times included."""

import io
from collections.abc import Callable

import memory
from memory import Run, Store, transfer
from memory.adapters.cloud import GriptapeCloudRepository
from memory.domain.values import to_datetime
from memory.port.changes import Change, ChangeSet
from memory.testing.base import put, read, read_runs, run, snapshot
from tests.cloud_server import Assumptions, CloudServer


def lines(store: Store) -> bytes:
    return "".join(transfer.dump(store)).encode()


def test_what_is_exported_and_imported_is_the_same(connect: Callable[..., GriptapeCloudRepository]) -> None:
    origin, back = (memory.connect("memory://", namespace="copy") for _ in range(2))
    cloud = Store(connect(), "copy")
    put(origin, "gaps", {"n": 1.0, "odd": "\ud83d\ude00", "\x00": [2**70]}, *[run(n) for n in range(8)])
    put(origin, "long", None, *[Run({"n": n}, "x" * 2000, {"k": n}) for n in range(150)])
    put(origin, "x" * 255)
    with origin.begin() as uow:
        uow.runs.remove("gaps", 1, 4, 5, 8)
        uow.conversations.get("gaps").metadata["n"] = 2
        uow.conversations.get("long").expires_at = to_datetime(4_000_000_000_000_000)
        uow.runs.remove("long", before=30)
    exported = lines(origin)
    transfer.restore(cloud, transfer.read_lines(io.BytesIO(exported)))
    assert snapshot(cloud) == snapshot(origin)
    assert lines(cloud) == exported
    transfer.restore(back, transfer.read_lines(io.BytesIO(lines(cloud))))
    assert snapshot(back) == snapshot(origin)
    more = Run("more", "", id="more", created_at=to_datetime(0))
    for store in (origin, cloud):
        with store.begin() as uow:
            uow.runs.append("gaps", more)
    assert read_runs(cloud, "gaps")[-1] == read_runs(origin, "gaps")[-1]


def test_what_the_service_cannot_keep_is_refused_wholly_and_the_rest_goes_on() -> None:
    origin = memory.connect("memory://")
    put(origin, "a", None, run("1"))
    put(origin, "b", None, run("1"), Run("x" * 5_000, ""))
    put(origin, "c", None, run("1"))
    server = CloudServer(Assumptions(largest_text=1_000))
    with Store(GriptapeCloudRepository(server.host, "key-of-org-a")) as cloud:
        told: list[transfer.RejectedConversation] = []
        totals = transfer.restore(cloud, transfer.read_lines(io.BytesIO(lines(origin))), on_refusal=told.append)
        assert totals == transfer.Totals(conversations=2, runs=2, refused=1)
        assert [(one.number, "at most 1000" in one.reason, "goes on" in one.reason) for one in told] == [
            (2, True, False)
        ]
        assert server.texts == [["1"], ["1"]]
        assert [one.id for one in cloud.begin().conversations.find(order="id")] == ["a", "c"]
    server.stop()


def test_given_positions_are_kept(store: Store, connect: Callable[..., GriptapeCloudRepository]) -> None:
    put(store, "a", None, run(1), run(2))
    for positions, gone in (((3, 4), 0), ((7, 8, 10), 3), ((20,), 12)):
        runs = tuple([run(at).to_record(at) for at in positions])
        changes = ChangeSet.of([Change("a", append=runs)], at=5_000_000_000_000_000)
        receipt = store.commit(changes).written["a"]
        assert receipt is not None
        assert (receipt.last_position, receipt.last_position - receipt.run_count) == (positions[-1], gone)
        again = Store(connect())
        assert [(one.position, one.input) for one in read_runs(again, "a")][-1] == (positions[-1], positions[-1])
        assert store.commit(changes).written["a"] == receipt
    assert [one.position for one in read_runs(store, "a")] == [1, 2, 3, 4, 7, 8, 10, 20]
    stored = read(Store(connect()), "a")
    assert (stored.run_count, stored.last_position, stored.version) == (8, 20, 1)
