"""Transfers run on a thread of their own, report each step to the event loop, and stop when nobody waits."""

import io
from contextlib import aclosing

import anyio
import pytest

from memory import AlreadyExistsError, Conversation, Run, aio
from memory.adapters.in_memory import InMemoryRepository
from memory.core.events import Committed
from memory.errors import StoreUnavailableError
from memory.port.changes import ChangeSet, Receipt
from memory.transfer import Difference, NotCopied, RejectedConversation, Totals, batching, read_lines
from tests.aio.conftest import GatedRepository


async def filled(conversations: int = 5) -> aio.Store:
    store = await aio.connect("memory://")
    for number in range(conversations):
        async with store.begin() as uow:
            await uow.conversations.add(Conversation(f"c{number}", {"n": number}))
            await uow.runs.append(f"c{number}", Run(number, None))
    return store


def test_a_copy_reports_its_steps_and_what_it_left(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_CONVERSATIONS", 1)

    async def main() -> None:
        source, target = await filled(), await filled(1)
        async with target.begin() as uow:
            (await uow.conversations.get("c0")).metadata["n"] = "another"
        copying = aio.copy(source, target)
        steps = [step async for step in copying]
        assert [step.id for step in steps if isinstance(step, NotCopied)] == ["c0"]
        totals = [step.conversations for step in steps if isinstance(step, Totals)]
        assert totals == sorted(totals)
        assert copying.result == Totals(conversations=4, runs=4, skipped=1)
        assert (await aio.copy(source, target)).equal == 4
        verifying = aio.verify(source, target)
        differences = [difference async for difference in verifying]
        assert [type(difference) for difference in differences] == [Difference]
        assert verifying.result.differing == 1
        with pytest.raises(AlreadyExistsError):
            await aio.copy(source, target, on_conflict="fail")

    anyio.run(main, backend=anyio_backend)


def test_an_export_is_restored(anyio_backend: str) -> None:
    async def main() -> None:
        source, target = await filled(), await aio.connect("memory://")
        lines = "".join([piece async for piece in aio.dump(source)]) + "no JSON\n"
        steps = [step async for step in aio.restore(target, read_lines(io.BytesIO(lines.encode())))]
        assert [step.number for step in steps if isinstance(step, RejectedConversation)] == [6]
        assert (await aio.verify(source, target)).differing == 0

    anyio.run(main, backend=anyio_backend)


def test_a_copy_tells_asynchronous_subscribers(anyio_backend: str) -> None:
    told: list[Committed] = []

    async def subscriber(committed: Committed) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(committed)

    async def main() -> None:
        source, target = await filled(), await aio.connect("memory://")
        target.subscribe(subscriber)
        await aio.copy(source, target)
        assert sum(len(committed.changes.changes) for committed in told) == 5

    anyio.run(main, backend=anyio_backend)


def test_a_cancelled_copy_stops_after_its_commit(anyio_backend: str, gated: GatedRepository) -> None:
    async def main() -> None:
        source, target = await filled(), aio.Store(gated)
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    assert await anyio.to_thread.run_sync(gated.begun.wait, 30)
                    scope.cancel()
                    gated.gate.set()

                tasks.start_soon(cancel)
                await aio.copy(source, target)
        assert scope.cancelled_caught
        assert gated.ended.is_set()
        copied = await target.conversations.count()
        assert copied > 0
        assert (await aio.copy(source, target)).equal == copied  # it is repeated

    anyio.run(main, backend=anyio_backend)


def test_an_export_that_is_left_ends_its_thread(anyio_backend: str) -> None:
    async def main() -> None:
        source = await filled(300)
        async with aclosing(aio.dump(source).__aiter__()) as pieces:
            async for piece in pieces:
                assert piece
                break
        assert [piece async for piece in pieces] == []

    anyio.run(main, backend=anyio_backend)


def test_an_error_of_a_store_is_raised(anyio_backend: str) -> None:
    class Failing(InMemoryRepository):
        def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
            raise StoreUnavailableError("no")

    async def main() -> None:
        with pytest.raises(StoreUnavailableError, match="no"):
            await aio.copy(await filled(), aio.Store(Failing()))

    anyio.run(main, backend=anyio_backend)


def test_a_mirror_relays(anyio_backend: str) -> None:
    async def main() -> None:
        async with await aio.mirror("sqlite://", other="memory://", search="memory://") as store:
            async with store.begin() as uow:
                await uow.conversations.add(Conversation("a"))
            assert (await store.lag())["other"].change_sets == 1
            steps = [step async for step in store.relay()]
            assert [(step.replica, step.delivered) for step in steps] == [("other", 1), ("search", 1)]
            assert await store.replicas["other"].conversations.exists("a")
            assert [relayed.delivered for relayed in await store.relay()] == [0, 0]
            assert await store.forget("former") == 0
            assert (await store.migrate()).is_current

    anyio.run(main, backend=anyio_backend)
