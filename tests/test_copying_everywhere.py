"""Copying between all kinds of stores, and what is particular to one of them."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

import memory
from memory import (
    ConfigurationError,
    Conversation,
    PartialCommitError,
    Run,
    Store,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.domain import values
from memory.domain.values import Json, new_id
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import Repository
from memory.testing.base import do, put, read, read_runs, run, snapshot
from memory.testing.strategies import ODD_NUMBERS, ODD_STRINGS
from memory.transfer import Copied, NotCopied, copy, copy_conversation
from memory.transfer.verifying import verify
from tests.cloud_server import CloudServer, faults
from tests.copying import interfering, objects
from tests.servers import Server, postgres
from tests.servers.redis import fresh_prefix

KINDS = ("memory", "sqlite", "postgresql", "redis", "dynamodb", "cloud")


@pytest.fixture(scope="module")
def repositories(
    postgres_server: Server, redis_server: Server, dynamodb_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Repository]]:
    """A repository of each kind; tests are parted by their namespaces."""
    name, cloud = f"copying-{new_id()}", CloudServer()
    with (
        postgres.fresh_database(postgres_server) as postgres_url,
        memory.connect("memory://") as objects,
        memory.connect(f"sqlite:///{tmp_path_factory.mktemp('copying')}/file.db") as file,
        memory.connect(postgres_url) as database,
        fresh_prefix(redis_server) as redis_url,
        memory.connect(redis_url) as hashes,
        memory.connect(f"dynamodb://{name}?endpoint={dynamodb_server.url}") as items,
        closing(GriptapeCloudRepository(cloud.host, "key-of-org-a")) as threads,
    ):
        stores = [*[store.repository for store in (objects, file, database, hashes, items)], threads]
        for repository in stores:
            repository.migrate()
        yield dict(zip(KINDS, stores, strict=True))
    cloud.stop()


@pytest.fixture
def store_of(repositories: dict[str, Repository]) -> Callable[[str], Store]:
    """Make a store of a kind, in a new namespace."""
    return lambda kind: Store(repositories[kind], new_id())


def fill(store: Store) -> None:
    """Put in all that stores could keep otherwise."""
    ids = ("B", "a", "Z", "\u00e9", "\uffff", "\U0001f600", "a b", "10", "9", "x" * 255, "a/b:c", "'; drop", "*")
    soon = datetime.now(UTC) + timedelta(days=400, microseconds=1)
    values: list[Json] = [*ODD_NUMBERS, None, True, [], {}, [1, 1.0, True]]
    with store.begin() as uow:
        for number, conversation_id in enumerate(ids):
            text, value = ODD_STRINGS[number], values[number]
            uow.conversations.add(Conversation(conversation_id, metadata={"value": value, text: [text, {"é": value}]}))
            uow.runs.append(conversation_id, Run(text, value, {"value": value}), Run([value], {text: text}, id="same"))
        uow.conversations.add(Conversation("odd"))
        uow.runs.append("odd", *[Run(value, text) for value, text in zip(values, ODD_STRINGS, strict=False)])
        uow.conversations.add(Conversation("expires", expires_at=soon))
        uow.conversations.add(Conversation("empty"))
        uow.conversations.add(Conversation("cleared"))
        uow.conversations.add(Conversation("gaps"))
        uow.conversations.add(Conversation("long", {"n": 1}))
        uow.conversations.add(Conversation("long without its last"))
        for conversation_id in ("cleared", "gaps", "long", "long without its last"):
            uow.runs.append(conversation_id, *[run(n) for n in range(35)])
    with store.begin() as uow:
        uow.runs.clear("cleared")
        uow.runs.remove("gaps", 1, 4, 5, 35)
        uow.runs.remove("long without its last", 34, 35)
        uow.conversations.get("gaps").metadata["n"] = 1.0
        uow.runs.append("odd", Run("later", None))


@pytest.fixture(scope="module")
def origin() -> Store:
    origin = objects()
    fill(origin)
    return origin


@pytest.fixture(scope="module")
def sources(repositories: dict[str, Repository], origin: Store) -> dict[str, Store]:
    """A copy in a store of each kind."""
    stores = {kind: Store(repository, new_id()) for kind, repository in repositories.items()}
    for store in stores.values():
        assert copy(origin, store).conversations == 20
    return stores


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize(("here", "there"), list(product(KINDS, KINDS)))
def test_every_store_is_copied_to_every_store(
    here: str, there: str, origin: Store, sources: dict[str, Store], store_of: Callable[[str], Store]
) -> None:
    source, target = sources[here], store_of(there)
    totals = copy(source, target)
    assert (totals.conversations, totals.equal, totals.skipped, totals.refused) == (20, 0, 0, 0)
    assert list(verify(source, target)) == []
    assert snapshot(target) == snapshot(origin)
    again = copy(source, target)
    assert (again.conversations, again.runs, again.equal) == (0, 0, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_was_appended_is_written_to_a_copy(kind: str, store_of: Callable[[str], Store]) -> None:
    source, target = objects(), store_of(kind)
    put(source, "a", None, *[run(n) for n in range(30)])
    copy_conversation(source, target, "a")
    with source.begin() as uow:
        uow.runs.append("a", run(30))
    assert copy_conversation(source, target, "a").runs == 1
    assert copy_conversation(source, target, "a") == Copied("equal")
    assert snapshot(target) == snapshot(source)


class DiedError(BaseException):
    """What stands for the end of the process."""


@contextmanager
def dying(store: Store, after: int) -> Iterator[None]:
    """Die before the commit of a number, from 0."""
    original, number = store.repository.commit, 0

    def commit(namespace: str, changes: ChangeSet) -> Receipt:
        nonlocal number
        if number == after:
            raise DiedError
        number += 1
        return original(namespace, changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.repository, "commit", commit)
        yield


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("conversation_id", ["whole", "without its last"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_dies_between_two_commits_is_gone_on_with(
    kind: str, conversation_id: str, store_of: Callable[[str], Store]
) -> None:
    source = objects()
    put(source, conversation_id, {"n": 1}, *[run(n) for n in range(35)])
    if conversation_id == "without its last":
        do(source, lambda uow: uow.runs.remove(conversation_id, 35))
    total, commits = read(source, conversation_id).run_count, 0
    for commits in range(1, 10):
        target = store_of(kind)
        try:
            with dying(target, commits):
                copy_conversation(source, target, conversation_id)
        except DiedError:
            pass
        else:
            break
        part = read(target, conversation_id)
        assert part.version == read(source, conversation_id).version - 1
        assert part.run_count == (10 * commits if commits < 4 else 35)
        assert [one.id for one in verify(source, target)] == [conversation_id]
        is_at_the_end = part.last_position == 35  # there is a run that nobody else has: it is begun again
        assert copy_conversation(source, target, conversation_id).runs == (
            34 if is_at_the_end else total - part.run_count
        )
        assert snapshot(target) == snapshot(source)
        assert list(verify(source, target)) == []
    assert commits == (4 if conversation_id == "whole" else 5)


def test_two_copies_at_once_end_with_the_same(store_of: Callable[[str], Store]) -> None:
    source, target = objects(), store_of("sqlite")
    put(source, "a", None, *[run(n) for n in range(900)])

    def copy_too(number: int) -> None:
        if number in (2, 4):
            copy_conversation(source, target, "a")

    with interfering(source, copy_too):
        copy_conversation(source, target, "a")
    assert snapshot(target) == snapshot(source)


def test_a_service_without_transactions_that_breaks_off_is_gone_on_with(cloud_server: CloudServer) -> None:
    source, refusal = objects(), faults.Fault(kind="status", status=403)
    for conversation_id in "abcdef":
        put(source, conversation_id, {"n": 1}, *[run(n) for n in range(130)])
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        target = Store(repository)
        for number in (2, 40, 60):
            cloud_server.plan = faults.in_turn([None] * number + [refusal] * 40, "POST")
            with pytest.raises((PartialCommitError, ConfigurationError)):
                copy(source, target)
        cloud_server.plan = faults.no_faults
        copy(source, target)
        assert snapshot(target) == snapshot(source)
        assert list(verify(source, target)) == []


@pytest.mark.parametrize("number", [1, 45])
def test_what_a_service_refuses_in_the_middle_is_told_and_the_rest_goes_on(
    number: int, cloud_server: CloudServer
) -> None:
    source, refusal = objects(), faults.Fault(kind="status", status=400)
    for conversation_id in "abcd":
        put(source, conversation_id, {"n": 1}, *[run(n) for n in range(130)])
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        target = Store(repository)
        cloud_server.plan = faults.in_turn([None] * number + [refusal], "POST")
        told: list[NotCopied] = []
        totals = copy(source, target, on_not_copied=told.append)
        assert (totals.conversations, totals.refused, len(told)) == (3, 1, 1)
        assert "400" in told[0].reason
        assert told[0].id not in target.begin().conversations  # nor a part of it
        cloud_server.plan = faults.no_faults
        copy(source, target)
        assert list(verify(source, target)) == []


@pytest.mark.parametrize("message", [{"input": "a", "output": "b"}, {"input": "{broken", "output": '{"type": "x"}'}])
def test_threads_that_others_made_are_copied_as_they_are_read(
    message: dict[str, str], cloud_server: CloudServer
) -> None:
    body = {"name": "theirs", "alias": "theirs", "metadata": {"customer": "ada"}, "messages": [message] * 3}
    cloud_server.service.answer("org-a", "POST", ["threads"], {}, body)
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        source, target = Store(repository), objects()
        put(source, "ours", None, run())
        do(source, lambda uow: uow.runs.append("ours", run()))  # at a time that the service says
        assert copy(source, target).conversations == 2
        assert list(verify(source, target)) == []
        assert copy(source, target).equal == 2
        assert len(read_runs(target, "theirs")) == 3


@pytest.mark.needs("postgres", "redis", "dynamodb")
@pytest.mark.parametrize("kind", KINDS)
def test_text_that_was_stored_with_escapes_is_the_same_text(
    kind: str, store_of: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata: dict[str, Json] = {"müßig": "Grüße", "\ud83d": "\x00\udc00\ud83d", "😀": ["你好"]}
    runs = Run(list(ODD_STRINGS), "世界", {"n": "😀"}), Run("plain", "plain")
    old, new = store_of(kind), store_of("memory")
    with monkeypatch.context() as patch:
        patch.setattr(values, "_write", values._write_ascii)
        put(old, "é", metadata, *runs)
    do(old, lambda uow: uow.conversations.get("é"))
    assert read(old, "é").version == 1
    assert copy_conversation(old, new, "é", thorough=True) == Copied("copied", 2)
    assert list(verify(old, new)) == []
    assert copy_conversation(old, new, "é", thorough=True) == Copied("equal", 0)
    (record,) = [one.record for one in new.begin().conversations.find()]
    assert record is not None
    assert "müßig" in record.metadata
