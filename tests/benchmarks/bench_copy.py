"""How fast a store is copied: ``python -m tests.benchmarks.bench_copy [FILE.jsonl.gz...]``.

Each target takes turns between `memory copy` and `memory export - | memory import -`, which is two processes at once. Without
files conversations are made up. The wall time is of whole processes, their start included; memory is the peak of a process that
copies, for the files and for four times as many conversations, and for one conversation of 100,000 runs and of 400,000.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import memory
from memory import Conversation, Run
from memory.domain.values import new_id
from memory.transfer import ParsedConversation, RejectedConversation, copy, read_lines, restore, uncompressed
from tests.benchmarks.bench_import import made_up
from tests.servers import postgres, redis

_MEASURE_MEMORY = "--peak-of"
_ROUNDS = 2


def main() -> None:
    if sys.argv[1:2] == [_MEASURE_MEMORY]:
        print(_peak(*sys.argv[2:]))
        return
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = [Path(given) for given in sys.argv[1:]] or [made_up(folder / "made-up.jsonl.gz")]
        source = f"sqlite:///{folder}/source.db"
        with memory.connect(source) as store:
            for file in files:
                with file.open("rb") as stream:
                    restore(store, read_lines(uncompressed(stream)))
            conversations = store.begin().conversations.count()
        print(f"{conversations:,} conversations")
        _compare("sqlite", source, lambda: f"sqlite:///{folder}/{new_id()}.db", conversations)
        server = postgres.start()
        stack.callback(server.stop)
        _compare("PostgreSQL", source, lambda: stack.enter_context(postgres.fresh_database(server)), conversations)
        server = redis.start()
        stack.callback(server.stop)
        _compare("Redis", source, lambda: stack.enter_context(redis.fresh_prefix(server)), conversations)
        _compare_memory(files, folder)


def _compare(name: str, source: str, fresh: Callable[[], str], conversations: int) -> None:
    times: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        target, piped = fresh(), fresh()
        for url in (target, piped):
            with memory.connect(url) as store:
                store.migrate()
        here = f"--store={source}"
        for what, commands in {
            "copy": [["copy", source, target]],
            "export | import": [["export", here], ["import", f"--store={piped}", "-"]],
            "copy again": [["copy", source, target]],
            "compare": [["copy", source, target, "--verify-only"]],
        }.items():
            times.setdefault(what, []).append(_run(*commands))
    print(f"from sqlite to {name}")
    floor = min(times["export | import"])
    for what, taken in times.items():
        seconds = min(taken)
        print(
            f"  {what:16} {seconds:6.2f} s  {conversations / seconds:9,.0f} conversations/s  ratio {seconds / floor:5.2f}"
        )


def _run(*commands: list[str]) -> float:
    begin = time.perf_counter()
    processes: list[subprocess.Popen[bytes]] = []
    for arguments in commands:
        command = [sys.executable, "-m", "memory.cli", *arguments]
        given = processes[-1].stdout if processes else None
        processes.append(subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        if given is not None:
            given.close()
    told = processes[-1].communicate()
    for process in processes:
        if process.wait():
            raise SystemExit(f"{process.args!r} failed: {told!r}")
    return time.perf_counter() - begin


def _compare_memory(files: list[Path], folder: Path) -> None:
    fills: dict[str, Callable[[str, int], None]] = {
        "these conversations": lambda url, times: _multiply(files, url, times),
        "one conversation of 100,000 runs": lambda url, times: _long(url, 100_000 * times),
    }
    for what, fill in fills.items():
        peaks = []
        for times in (1, 4):
            url = f"sqlite:///{folder}/{new_id()}.db?synchronous=normal"
            fill(url, times)
            command = [sys.executable, "-m", "tests.benchmarks.bench_copy", _MEASURE_MEMORY, url]
            peaks.append(
                int(subprocess.run([*command, f"{folder}/{new_id()}.db"], check=True, capture_output=True).stdout)
            )
        print(f"peak of {what}: {peaks[0] / 1024:.1f} MiB, of four times as many {peaks[1] / 1024:.1f} MiB")


def _multiply(files: list[Path], url: str, times: int) -> None:
    def lines(file: Path, turn: int) -> Iterator[ParsedConversation | RejectedConversation]:
        with file.open("rb") as stream:
            for line in read_lines(uncompressed(stream)):
                if isinstance(line, ParsedConversation) and line.change.create is not None:
                    conversation_id = f"{turn}-{line.change.id}"
                    record = line.change.create._replace(id=conversation_id)
                    yield replace(line, change=line.change._replace(id=conversation_id, create=record))

    with memory.connect(url) as store:
        for turn in range(times):
            for file in files:
                restore(store, lines(file, turn))


def _long(url: str, runs: int) -> None:
    with memory.connect(url) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("long"))
        for _ in range(0, runs, 5_000):
            with store.begin() as uow:
                uow.runs.append("long", *[Run("x" * 100, "y" * 100) for _ in range(5_000)])


def _peak(source: str, target: str) -> int:
    """Copy, and return the most memory this process had, in KiB."""
    gc.set_threshold(200_000)  # as the command does
    with memory.connect(source) as here, memory.connect(f"sqlite:///{target}") as there:
        copy(here, there)
    # Not getrusage: its figure is never less than that of the process this one was forked from.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
