"""What the asynchronous API costs and gains: ``python tests/benchmarks/bench_aio.py [URL]``.

It appends and reads the last 20 runs by both APIs in turn, and lets 16 clients talk to a FastAPI application whose model takes
0.2 seconds: by a ``def`` endpoint, and by an ``async def`` one. FOLDER in the URL stands for a new folder.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import anyio
import httpx
from fastapi import FastAPI

import memory
from memory import Run, aio
from tests.benchmarks.measuring import TEXT, fill

ROUNDS, CLIENTS, TURNS, MODEL = 300, 16, 10, 0.2


async def medians(store: memory.Store, asynchronous: aio.Store) -> None:
    async def append() -> None:
        async with asynchronous.begin() as uow:
            await uow.runs.append("a", Run(TEXT, TEXT))

    async def last() -> None:
        async with asynchronous.begin() as uow:
            await uow.runs.last("a", 20)

    def append_now() -> None:
        with store.begin() as uow:
            uow.runs.append("a", Run(TEXT, TEXT))

    def last_now() -> None:
        with store.begin() as uow:
            uow.runs.last("a", 20)

    for name, now, later in (("append", append_now, append), ("last 20", last_now, last)):
        times: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            now()
            middle = time.perf_counter()
            await later()
            times.append((middle - begin, time.perf_counter() - middle))
        synchronous, other = (statistics.median(each) * 1e6 for each in zip(*times[ROUNDS // 10 :], strict=True))
        print(f"{name:10} sync {synchronous:8.1f} us   aio {other:8.1f} us   ratio {other / synchronous:5.2f}")


def threads_named(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def application(store: memory.Store, asynchronous: aio.Store) -> FastAPI:
    app = FastAPI()

    @app.post("/def/{conversation_id}")
    def turn_now(conversation_id: str) -> int:
        with store.begin() as uow:
            uow.conversations.get_or_create(conversation_id)
            uow.runs.last(conversation_id, 20)
        time.sleep(MODEL)
        with store.begin() as uow:
            uow.runs.append(conversation_id, Run(TEXT, TEXT))
        return threads_named("AnyIO")

    @app.post("/async/{conversation_id}")
    async def turn(conversation_id: str) -> int:
        async with asynchronous.begin() as uow:
            await uow.conversations.get_or_create(conversation_id)
            await uow.runs.last(conversation_id, 20)
        await anyio.sleep(MODEL)
        async with asynchronous.begin() as uow:
            await uow.runs.append(conversation_id, Run(TEXT, TEXT))
        return threads_named("memory")

    return app


async def throughput(kind: str, app: FastAPI) -> None:
    threads, longest = 0, 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - begin - 0.001)

    async def talk(number: int) -> None:
        nonlocal threads
        for _ in range(TURNS):
            answer = await client.post(f"/{kind}/{kind}-{number}")
            threads = max(threads, answer.raise_for_status().json())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here", timeout=60) as client:
        ticking = asyncio.ensure_future(tick())
        begin = time.perf_counter()
        await asyncio.gather(*[talk(number) for number in range(CLIENTS)])
        seconds = time.perf_counter() - begin
        ticking.cancel()
    print(
        f"{kind:6} endpoint, {CLIENTS} clients: {CLIENTS * TURNS / seconds:6.1f} turns/s, {threads} threads, "
        f"the event loop was late by {longest * 1e3:.1f} ms at most"
    )


def importing() -> None:
    def seconds(code: str) -> float:
        times = []
        for _ in range(15):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - begin)
        return min(times)

    bare = seconds("pass")
    for what in ("import memory", "from memory import aio"):
        print(f"{what}: {(seconds(what) - bare) * 1e3:.0f} ms over {bare * 1e3:.0f} ms of a bare interpreter")


async def measure(url: str) -> None:
    with memory.connect(url) as store:
        store.migrate()
        if not store.conversations.exists("a"):
            fill(store, "a", 1_000)
        asynchronous = aio.Store(store.repository)
        await medians(store, asynchronous)
        for kind in ("def", "async", "def", "async"):
            await throughput(kind, application(store, asynchronous))


if __name__ == "__main__":
    import logging

    logging.getLogger("memory.aio").setLevel(logging.ERROR)  # it blocks the event loop on purpose
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure((sys.argv[1:] or ["sqlite:///FOLDER/aio.db"])[0].replace("FOLDER", folder)))
    importing()
