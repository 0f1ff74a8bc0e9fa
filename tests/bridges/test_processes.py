"""Processes that use one conversation at the same time, and one that is killed: no run that was stored is lost."""

import subprocess
import sys
from pathlib import Path

import memory
from tests.bridges.talking import ids, memory_on

ROOT = Path(__file__).parents[2]


def started(url: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bridges.appending", url, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_by(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        line = said_by(process)
        assert line == "loaded", line + process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def test_two_processes_with_20_runs_each_keep_40(shared_url: str) -> None:
    processes = [started(shared_url, prefix, "20") for prefix in ("a", "b")]
    let_go(*processes)
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with memory.connect(shared_url) as store:
        loaded = memory_on(store)
    for prefix in ("a", "b"):
        assert [name for name in ids(loaded) if name[1] == prefix] == [f"r{prefix}{number}" for number in range(20)]
    assert len(ids(loaded)) == 40
    if "griptape" not in shared_url:  # where versions are compared just before a write, the last one stands
        assert loaded.meta == {"a": 19, "b": 19}


def test_a_process_that_is_killed_has_stored_each_run_it_has_told_of(shared_url: str) -> None:
    process = started(shared_url, "k", "1000")
    let_go(process)
    told = [said_by(process) for _ in range(7)]
    process.kill()
    process.communicate(timeout=60)
    with memory.connect(shared_url) as store:
        loaded = ids(memory_on(store))
    assert loaded[:7] == told
    assert loaded == [f"rk{number}" for number in range(len(loaded))]
