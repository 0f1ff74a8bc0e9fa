"""What is read as a whole is one state of a conversation, whatever another process does to it meanwhile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import ConflictError, Conversation, CorruptRecordError, Run, Store, where
from memory.cli.transferring import Exporting
from memory.port.changes import ChangeSet, Receipt
from memory.testing.base import do, put, run
from memory.transfer import copy, dump, read_whole
from memory.transfer.verifying import verify
from tests.copying import interfering, objects
from tests.rounds import rounds
from tests.servers import postgres
from tests.servers.redis import fresh_prefix

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import itertools, sys
from dataclasses import replace
import memory
from memory import Conversation, Run

store = memory.connect(sys.argv[1])

def write(uow, id, runs, who):
    uow.conversations.add(Conversation(id, {"who": who, "runs": runs}))
    uow.runs.append(id, *[Run(n, who) for n in range(runs)])

def edit(uow, id, runs, who):
    uow.conversations.get(id).metadata = {"who": who, "runs": runs}
    uow.runs.clear(id)
    uow.runs.append(id, *[Run(n, who) for n in range(runs)])

def append(uow, id):
    uow.runs.append(id, replace(uow.runs.last(id, 1)[0], position=None))

with store.begin() as uow:
    uow.conversations.get("z").metadata["begun"] = True
print("ready", flush=True)
for number in itertools.count():
    for id, runs in ("a", 2), ("b", 2), ("long", 450):
        with store.begin() as uow:
            write(uow, id, runs, f"ada {number}")
        with store.begin() as uow:
            append(uow, id)
        with store.begin() as uow:
            edit(uow, id, runs + 1, f"bob {number}")
        with store.begin() as uow:
            uow.conversations.remove(id)
            if number % 2:
                write(uow, id, runs, f"eve {number}")
        if number % 2:
            with store.begin() as uow:
                uow.conversations.remove(id)
"""


@contextmanager
def another_process_writing(url: str) -> Iterator[None]:
    """While another process makes, appends to, edits, removes and makes again three conversations."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, url]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def check_one_state(metadata: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    assert {one["output"] for one in runs} == {metadata["who"]}
    assert [one["input"] for one in runs][: metadata["runs"]] == list(range(metadata["runs"]))
    assert len(runs) - metadata["runs"] in (0, 1)


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.needs("postgres")),
        pytest.param("redis", marks=pytest.mark.needs("redis")),
    ]
)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Store]]:
    """A store that other processes can use, and its URL."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/file.db?synchronous=normal"
        if request.param == "postgres":
            url = stack.enter_context(postgres.fresh_database(request.getfixturevalue("postgres_server")))
        elif request.param == "redis":
            url = stack.enter_context(fresh_prefix(request.getfixturevalue("redis_server")))
        store = stack.enter_context(memory.connect(url))
        store.migrate()
        put(store, "0")
        put(store, "z")
        yield url, store


def test_each_line_of_an_export_is_one_state_of_its_conversation(shared: tuple[str, Store]) -> None:
    url, store = shared
    read = 0
    with another_process_writing(url):
        while read < rounds(30):
            lines = [json.loads(line) for line in "".join(dump(store)).splitlines()]
            ids = [line["id"] for line in lines]
            assert ids == sorted(set(ids) | {"0", "z"})
            for line in lines[1:-1]:
                check_one_state(line["metadata"], line["runs"])
                read += 1


def test_each_conversation_that_is_copied_or_compared_is_one_state(shared: tuple[str, Store]) -> None:
    url, store = shared
    with another_process_writing(url):
        for _ in range(rounds(10)):
            target = objects()
            assert copy(store, target).refused == 0
            for conversation in target.begin().conversations.iterate(order="id"):
                if "who" in conversation.metadata:
                    runs = target.begin().runs.list(conversation.id)
                    check_one_state(conversation.metadata, [{"input": one.input, "output": one.output} for one in runs])
            assert not [one for one in verify(store, target) if "changed" in str(one) or "says" in str(one)]


def lines_while(store: Store, interfere: Callable[[int], object], **options: Any) -> list[dict[str, Any]]:
    with interfering(store, interfere):
        return [json.loads(line) for line in "".join(dump(store, **options)).splitlines()]


def test_a_conversation_that_is_removed_while_it_is_exported_is_left_out() -> None:
    store = objects()
    for id in "abc":
        put(store, id, None, *[run(n) for n in range(450)])

    def remove(number: int) -> None:
        if number == 5:  # when a part of b was read
            do(store, lambda uow: uow.conversations.remove("b"))

    assert [line["id"] for line in lines_while(store, remove)] == ["a", "c"]


def test_a_conversation_that_is_edited_while_it_is_exported_is_left_out_if_it_does_not_match_any_more() -> None:
    store = objects()
    for id in "ab":
        put(store, id, {"n": 1}, run(1))

    def edit(number: int) -> None:
        if number == 1:
            do(store, lambda uow: uow.conversations.get("a").metadata.update(n=2))

    assert [line["id"] for line in lines_while(store, edit, criterion=where("n") == 1)] == ["b"]


def test_what_is_edited_all_the_time_cannot_be_exported_and_is_named() -> None:
    store = objects()
    put(store, "a", {"n": 1}, run(1))
    with pytest.raises(ConflictError, match="conversation 'a' was changed while it was read"):
        lines_while(store, lambda number: do(store, lambda uow: uow.conversations.get("a").metadata.update(n=-number)))


def test_what_lacks_runs_cannot_be_exported_and_is_named(tmp_path: Path) -> None:
    with memory.connect(f"sqlite:///{tmp_path}/file.db") as store:
        put(store, "a", {"n": 1}, *[run(n) for n in range(3)])
        with store.repository.engine.begin() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("DELETE FROM memory_runs WHERE position = 2")
        with pytest.raises(CorruptRecordError, match="conversation 'a' has 2 runs, but its record says 3"):
            list(dump(store))


def test_many_runs_are_read_whole_in_their_order() -> None:
    store = objects()
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", *[Run(n, "\u00e9", id=f"\u00e9 {n}") for n in range(5_100)])  # more than one commit takes
    with read_whole(store, "a") as read:
        assert read is not None
        runs = [Run.from_record("a", one) for one in read.runs]
    assert runs == store.begin().runs.list("a")
    with read_whole(store, "a", last=2) as read:
        assert read is not None
        assert [one.position for one in read.runs] == [5_099, 5_100]


def test_nothing_is_read_of_what_is_not_there() -> None:
    with read_whole(objects(), "a") as read:
        assert read is None


@pytest.mark.parametrize("removes", [True, False])
def test_a_run_that_is_appended_to_the_target_meanwhile_is_a_conflict_for_a_copy(
    monkeypatch: pytest.MonkeyPatch, *, removes: bool
) -> None:
    """For one that removes, and for one that replaces: it looks at the target again."""
    source, target = objects(), objects()
    put(target, "a", {"n": 2}, run(2))
    put(source, "b" if removes else "a", {"n": 1}, run(1))
    commit, removals = target.repository.commit, 0

    def append_first(namespace: str, changes: ChangeSet) -> Receipt:
        nonlocal removals
        if any(change.remove for change in changes.changes):
            removals += 1
            if removals == 1:
                do(target, lambda uow: uow.runs.append("a", run("meanwhile")))
        return commit(namespace, changes)

    monkeypatch.setattr(target.repository, "commit", append_first)
    copy(source, target, on_conflict="replace", delete=True)
    assert removals == 2


@pytest.mark.parametrize("name", ["folder/", "a.json"])
def test_a_file_for_griptape_is_one_state_of_its_conversation(name: str, tmp_path: Path) -> None:
    store = objects()
    put(store, "a", {"who": "ada"}, run("ada"))

    def make_another(number: int) -> None:
        if number == 1:
            do(store, lambda uow: uow.conversations.remove("a"))
            put(store, "a", {"who": "bob"}, run("bob"))

    with interfering(store, make_another):
        assert Exporting(store, "griptape-local", None, "id").run(f"{tmp_path}/{name}") == 1
    (file,) = tmp_path.rglob("*.json")
    written = json.loads(file.read_text())
    assert written["metadata"] == {"who": "bob"}
    assert [one["input"]["value"] for one in written["runs"]] == ["bob"]


@pytest.mark.parametrize("name", ["folder/", "a.json"])
def test_no_file_is_written_of_what_is_removed_meanwhile(name: str, tmp_path: Path) -> None:
    store = objects()
    put(store, "a", {"who": "ada"}, run("ada"))
    with interfering(store, lambda _: do(store, lambda uow: uow.conversations.remove("a"))):
        assert Exporting(store, "griptape-local", None, "id").run(f"{tmp_path}/{name}") == 0
    assert not list(tmp_path.rglob("*.json*"))
