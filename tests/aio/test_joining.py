"""A unit of work joins the transaction of an AsyncSession or an AsyncConnection."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import memory
from memory import ConflictError, Conversation, InvalidValueError, Run, StoreUnavailableError, aio
from memory.core.events import Committed
from memory.port.repository import Repository

needs_postgres = pytest.mark.needs("postgres")
POSTGRESQL = [pytest.param(f"postgresql+{driver}", marks=needs_postgres) for driver in ("psycopg", "asyncpg")]


@pytest.fixture(params=[*POSTGRESQL, "sqlite+aiosqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    driver: str = request.param
    is_sqlite = driver.startswith("sqlite")
    url: str = f"sqlite:///{tmp_path}/store.db" if is_sqlite else request.getfixturevalue("postgres_url")
    return make_url(url).set(drivername=driver)


@pytest.fixture
def store(url: URL) -> Iterator[Repository]:
    driver = "sqlite" if url.drivername.startswith("sqlite") else "postgresql+psycopg"
    with memory.connect(url.set(drivername=driver).render_as_string(hide_password=False)) as store:
        store.migrate()
        yield store.repository


@pytest.fixture
def engine(url: URL) -> AsyncEngine:
    return create_async_engine(url)


def test_it_is_a_part_of_the_transaction(store: Repository, engine: AsyncEngine) -> None:
    async def main() -> None:
        opened = aio.Store(store)
        told: list[Committed] = []
        was_told = asyncio.Event()

        async def subscriber(committed: Committed) -> None:
            assert await opened.conversations.exists("a")  # it is committed
            told.append(committed)
            was_told.set()

        opened.subscribe(subscriber)
        async with AsyncSession(engine) as session:
            async with opened.begin(connection=session) as uow:
                await uow.conversations.add(Conversation("a"))
                await uow.runs.append("a", Run("q", "a"))
            assert not await opened.conversations.exists("a")
            await session.rollback()
            assert not await opened.conversations.exists("a")
            async with opened.begin(connection=session) as uow:
                conversation = await uow.conversations.get_or_create("a")
                await uow.runs.append(conversation, Run("q", "a"))
            assert told == []
            await session.commit()
        await asyncio.wait_for(was_told.wait(), 30)
        async with engine.begin() as connection:
            async with opened.begin(connection=connection) as uow:
                assert [run.output async for run in uow.runs.iterate("a")] == ["a"]
                (await uow.conversations.get("a")).metadata["n"] = 1
            await connection.execute(text("SELECT 1"))
        assert (await opened.conversations.get("a")).metadata == {"n": 1}
        await engine.dispose()

    asyncio.run(main())


def test_a_conflict_leaves_the_transaction_usable(store: Repository, engine: AsyncEngine) -> None:
    async def main() -> None:
        opened = aio.Store(store)
        async with opened.begin() as uow:
            await uow.conversations.add(Conversation("a"))
        async with engine.begin() as connection:
            uow = await opened.begin(connection=connection)
            (await uow.conversations.get("a")).metadata["n"] = 1
            async with opened.begin() as other:
                (await other.conversations.get("a")).metadata["n"] = 2
            with pytest.raises(ConflictError):
                await uow.commit()
            await connection.execute(text("SELECT 1"))
        assert (await opened.conversations.get("a")).metadata == {"n": 2}
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("url", POSTGRESQL, indirect=True)
def test_a_cancelled_transaction_writes_nothing(store: Repository, engine: AsyncEngine) -> None:
    async def main() -> None:
        opened = aio.Store(store)

        async def work() -> None:
            async with engine.begin() as connection:
                async with opened.begin(connection=connection) as uow:
                    await uow.conversations.add(Conversation("a"))
                written.set()
                await connection.execute(text("SELECT pg_sleep(30)"))

        written = asyncio.Event()
        task = asyncio.ensure_future(work())
        await written.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not await opened.conversations.exists("a")
        await engine.dispose()

    asyncio.run(main())


def test_each_face_refuses_the_sessions_of_the_other(store: Repository, engine: AsyncEngine) -> None:
    async def main() -> None:
        async with AsyncSession(engine) as session:
            with pytest.raises(InvalidValueError, match=r"AsyncSession is joined by memory\.aio\.Store\.begin"):
                memory.Store(store).begin(connection=session)
            with pytest.raises(InvalidValueError, match="not a Session, which would block"):
                await aio.Store(store).begin(connection=session.sync_session)
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["sqlite+aiosqlite"], indirect=True)
def test_nothing_is_committed_to_a_file_that_was_deleted(store: Repository, engine: AsyncEngine, url: URL) -> None:
    async def main() -> None:
        async with engine.connect() as connection:
            uow = await aio.Store(store).begin(connection=connection)
            assert not await uow.conversations.exists("a")
            Path(str(url.database)).unlink()
            await uow.conversations.add(Conversation("a"))
            with pytest.raises(StoreUnavailableError, match="deleted"):
                await uow.commit()
        await engine.dispose()

    asyncio.run(main())
