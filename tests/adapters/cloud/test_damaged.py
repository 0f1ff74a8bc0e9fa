"""Answers and stored texts that are damaged are errors, never "nothing there" and never something else than was written."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memory import Conversation, CorruptRecordError, PersistenceError, Run, Store, StoreUnavailableError
from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.changes import Change, ChangeSet
from memory.port.repository import Repository, Window
from memory.testing.base import put, run
from tests.cloud_server import CloudServer
from tests.cloud_server.serving import _Handler
from tests.rounds import rounds

Mangle = Callable[[bytes], bytes]
READS: dict[str, Callable[[Repository], object]] = {
    "get": lambda one: one.get("default", "a"),
    "find": lambda one: list(Store(one).begin().conversations.find(order="id")),
    "count": lambda one: Store(one).begin().conversations.count(),
    "runs": lambda one: one.runs("default", "a", Window()).runs,
    "last": lambda one: one.runs("default", "a", Window(limit=2, from_end=True)).runs,
}
VALUES: list[Any] = [None, True, -1, 0, 1, 7, 10**400, 1e400, float("nan"), "", "x", "1", [], {}, [1], {"a": 1}]


@pytest.fixture
def mangled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mangle]]:
    """What is done to the bodies of answers that are no errors."""
    applied: list[Mangle] = []
    write = _Handler._write

    def changed(self: _Handler, status: int, body: bytes, *args: Any, **options: Any) -> None:
        for mangle in applied if body and status < 300 else ():
            body = mangle(body)
        write(self, status, body, *args, **options)

    monkeypatch.setattr(_Handler, "_write", changed)
    yield applied
    applied.clear()


@pytest.fixture
def filled(connect: Callable[..., GriptapeCloudRepository]) -> Callable[[], GriptapeCloudRepository]:
    def open_one() -> GriptapeCloudRepository:
        return connect(timeout=10, attempts=2)

    repository = open_one()
    with Store(repository).begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1, "deep": [{"x": [1.5]}]}))
        uow.runs.append("a", Run({"k": [1]}, "out", {"m": 1}), run("2"), run("3"))
    put(Store(repository), "b", None, run("1"))
    with Store(repository).begin() as uow:
        uow.runs.remove("a", 2)
    return open_one


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every member and item of a structure, as its container and its key."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def damage(value: Any, chance: random.Random) -> str:
    """Damage one place of a structure, or the text of JSON that is there; return what was done."""
    container, key = chance.choice(list(places(value)))
    if isinstance(container[key], str) and container[key].startswith("{") and chance.random() < 0.8:
        inner = json.loads(container[key])
        if list(places(inner)):
            said = damage(inner, chance)
            container[key] = json.dumps(inner)
            return f"{key}: {said}"
    if chance.random() < 0.4 or key == "alias":  # another alias is another conversation
        del container[key]
        return f"without {key}"
    container[key] = chance.choice(VALUES)
    return f"{key} = {str(container[key])[:20]}"


@pytest.mark.parametrize("seed", range(rounds(3)))
def test_members_that_are_missing_or_of_another_type(
    filled: Callable[[], GriptapeCloudRepository], mangled: list[Mangle], seed: int
) -> None:
    expected = {name: read(filled()) for name, read in READS.items()}
    for number in range(60):
        chance = random.Random(1000 * seed + number)
        done: list[str] = []

        def mangle(body: bytes, chance: random.Random = chance, done: list[str] = done) -> bytes:
            if chance.random() < 0.4:
                return body
            fields = json.loads(body)
            done.append(damage(fields, chance))
            return json.dumps(fields).encode()

        name = chance.choice(list(READS))
        repository = filled()
        mangled[:] = [mangle]
        try:
            read = READS[name](repository)
        except PersistenceError:
            continue
        finally:
            mangled.clear()
        if read != expected[name]:
            assert plausible(read, name), f"{name}, {done}: {read}"


def plausible(read: object, name: str) -> bool:
    """Tell whether an edit, not damage, can be what made a difference: another value of the same type in the same place."""
    if name == "get":
        return isinstance(read, Conversation)
    if name == "count":
        return read == 2
    return isinstance(read, list | tuple) and len(read) == 2


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "lie",
    [
        {"total_count": 0},
        {"total_count": 1},
        {"total_count": 1000},
        {"total_pages": 0, "total_count": 500},
        {"page_number": 7},
        {"page_size": 0},
        {"page_size": 1},
        {"next_page": 2},
        {"total_count": None},
        {"page_size": "100"},
    ],
)
def test_pages_that_lie(
    filled: Callable[[], GriptapeCloudRepository], mangled: list[Mangle], lie: dict[str, Any], read: str
) -> None:
    expected, repository = READS[read](filled()), filled()

    def mangle(body: bytes) -> bytes:
        fields = json.loads(body)
        if "pagination" in fields:
            fields["pagination"] |= lie
        return json.dumps(fields).encode()

    mangled[:] = [mangle]
    with contextlib.suppress(CorruptRecordError):
        assert READS[read](repository) == expected


@pytest.mark.parametrize("read", READS)
def test_a_list_that_is_cut_is_not_a_shorter_one(
    filled: Callable[[], GriptapeCloudRepository], mangled: list[Mangle], read: str
) -> None:
    lefts: tuple[list[Any] | None, ...] = ([], None)
    for name in ("threads", "messages"):
        for left in lefts:
            repository = filled()
            repository.get("default", "a")

            def mangle(body: bytes, name: str = name, left: Any = left) -> bytes:
                fields = json.loads(body)
                if name in fields and left is None:
                    del fields[name]
                elif name in fields:
                    fields[name] = left
                return json.dumps(fields).encode()

            expected = READS[read](repository)
            mangled[:] = [mangle]
            with contextlib.suppress(CorruptRecordError):
                assert READS[read](repository) == expected
            mangled.clear()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_body_that_ends_too_early(
    filled: Callable[[], GriptapeCloudRepository], mangled: list[Mangle], share: float, read: str
) -> None:
    repository = filled()
    mangled[:] = [lambda body: body[: int(len(body) * share)]]
    with pytest.raises(StoreUnavailableError):
        READS[read](repository)


@pytest.mark.parametrize("text", [b"[" * 100_000 + b"]" * 100_000, b'{"n": ' + b"9" * 10_000 + b"}"])
def test_a_body_that_python_cannot_read(
    filled: Callable[[], GriptapeCloudRepository], mangled: list[Mangle], text: bytes
) -> None:
    repository = filled()
    mangled[:] = [lambda _: text]
    with pytest.raises(CorruptRecordError):
        repository.get("default", "a")


@pytest.mark.parametrize("number", range(rounds(40)))
def test_stored_bookkeeping_that_was_edited(
    filled: Callable[[], GriptapeCloudRepository], cloud_server: CloudServer, number: int
) -> None:
    """Reading and writing end as they should, or with an error of ours; and nothing is half written."""
    chance = random.Random(number)
    threads = {thread.alias: thread for thread in cloud_server.service.threads.values()}
    filled()
    target: Any = chance.choice([threads["a"], *threads["a"].messages])
    metadata = json.loads(json.dumps(target.metadata))
    if chance.random() < 0.2:
        metadata["conversation_memory"] = chance.choice(["", "{", "[" * 5000, "null", "[]", '{"format":2}', 7])
    else:
        damage(metadata, chance)
    target.metadata = metadata
    repository = filled()
    for read in READS.values():
        try:
            read(repository)
        except CorruptRecordError:
            continue
    edits = [
        Change("a", append=(run("4").to_record(),)),
        Change("a", metadata='{"n":2}'),
        Change("a", remove_runs=(1,)),
        Change("a", replace_runs=(run("new").to_record(3),)),
        Change("a", remove=True),
    ]
    for edit in edits:
        try:
            repository.commit("default", ChangeSet.of([edit], 0))
        except PersistenceError:
            continue
    found = repository.get("default", "b")
    assert found is not None
    assert found.run_count == 1


@pytest.mark.parametrize("spoiled", ["{", "null", '{"format":1}', '{"format":2}', 7])
def test_damaged_bookkeeping_is_no_conversation_of_others(
    filled: Callable[[], GriptapeCloudRepository], cloud_server: CloudServer, spoiled: object
) -> None:
    (thread,) = (one for one in cloud_server.service.threads.values() if one.alias == "a")
    thread.metadata["conversation_memory"] = spoiled
    for name in ("get", "find", "count", "runs"):
        with pytest.raises(CorruptRecordError, match=thread.thread_id):
            READS[name](filled())
    assert filled().get("default", "b") is not None
    assert filled().namespaces() == {"default"}


@pytest.mark.parametrize("spoiled", ["{", '{"format":1,"token":7}', {"format": 1}])
def test_a_damaged_mark_is_no_run_of_others(
    filled: Callable[[], GriptapeCloudRepository], cloud_server: CloudServer, spoiled: object
) -> None:
    (thread,) = (one for one in cloud_server.service.threads.values() if one.alias == "a")
    thread.messages[-1].metadata["conversation_memory"] = spoiled
    with pytest.raises(CorruptRecordError, match=thread.messages[-1].message_id):
        READS["runs"](filled())


def test_an_answer_about_another_thread_is_none(
    filled: Callable[[], GriptapeCloudRepository], cloud_server: CloudServer, mangled: list[Mangle]
) -> None:
    first, other = (one.thread_id for one in cloud_server.service.threads.values())
    repository = filled()
    for name in ("runs", "last"):
        mangled.clear()
        READS[name](repository)
        mangled[:] = [lambda body: body if b'"threads"' in body else body.replace(first.encode(), other.encode())]
        with pytest.raises(CorruptRecordError, match="the service answered for"):
            READS[name](repository)
