"""Items that were edited by hand, or do not belong: reported as corrupt, or read correctly, and nothing else."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.errors import CorruptRecordError, PersistenceError
from memory.testing.base import run, walk
from tests.adapters.dynamodb.conftest import make_table
from tests.adapters.dynamodb.watching import before_each
from tests.rounds import rounds
from tests.servers import Server

Item = dict[str, dict[str, Any]]

VALUES: tuple[dict[str, Any], ...] = (
    {"S": ""},
    {"S": "x"},
    {"S": "null"},
    {"S": "nan"},
    {"S": "[]"},
    {"S": "{}"},
    {"S": "[" * 5_000},
    {"S": '{"a":1e999}'},
    {"S": "ff" * 16},
    {"N": "-1"},
    {"N": "0"},
    {"N": "1.5"},
    {"N": "1E+30"},
    {"N": "99999999999999999999999999999999999999"},
    {"N": "9007199254740993"},
    {"N": "9223372036854775807"},
    {"B": b"\xff\x00"},
    {"BOOL": True},
    {"NULL": True},
    {"L": []},
    {"M": {}},
)

USES: tuple[Callable[[Store], object], ...] = (
    lambda store: store.begin().conversations.get("a"),
    lambda store: store.begin().conversations.get("b"),
    walk,
    lambda store: walk(store, order="id"),
    lambda store: walk(store, order="created_at"),
    lambda store: walk(store, where("n") == 1),
    lambda store: walk(store, where("n") > 0),
    lambda store: store.begin().conversations.count(where("n").exists()),
    lambda store: store.begin().runs.list("a"),
    lambda store: store.begin().runs.last("b", 2),
    lambda store: store.begin().runs.list("b", after=1, before=3),
    lambda store: store.run(lambda uow: uow.runs.append("a", run("new"))),
    lambda store: store.run(lambda uow: uow.runs.append("b", *(run(n) for n in range(101)))),
    lambda store: store.run(lambda uow: uow.conversations.get("b").metadata.update(n=9)),
    lambda store: store.run(lambda uow: uow.runs.remove("a", 2)),
    lambda store: store.run(lambda uow: uow.runs.remove("b", before=2)),
    lambda store: store.run(lambda uow: uow.conversations.remove("a")),
    lambda store: store.run(lambda uow: uow.conversations.remove("b")),
    lambda store: store.begin().runs.list("c"),
    lambda store: store.run(lambda uow: uow.runs.append("c", run("new"))),
    Store.purge_expired,
)


@pytest.fixture
def table_name(dynamodb_server: Server) -> str:
    """A table of its own: all of its items are damaged in turn."""
    return make_table(dynamodb_server)


@pytest.fixture
def raw(repository: DynamoDbRepository, store: Store) -> "Raw":
    """Three conversations, one of them in many items, and one to which a commit that broke off was appending."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1, "tags": ["x", "y"]}))
        uow.runs.append("a", *(run(n) for n in range(3)))
        uow.conversations.add(Conversation("b", {"n": 2, "text": "y" * 900_000}, datetime(2100, 1, 1, tzinfo=UTC)))
        uow.runs.append("b", run(1), Run("x" * 800_000, ""), run(3))
        uow.conversations.add(Conversation("c", {"n": 3}))

    def kill(number: int) -> None:
        if number == 2:
            raise Killed

    uow = store.begin()
    uow.runs.append("c", *(run(n) for n in range(250)))
    with before_each(repository.client, "TransactWriteItems", kill), pytest.raises(Killed):
        uow.commit()
    return Raw(repository)


class Killed(BaseException):
    """Stands for the end of the process."""


class Raw:
    """The items of a table as DynamoDB has them."""

    def __init__(self, repository: DynamoDbRepository) -> None:
        self._client: Any = repository.client
        self._name = repository._table.name
        self.items: list[Item] = [item for item in self._scan() if item["pk"]["S"] != "schema"]

    def _scan(self) -> Iterator[Item]:
        for page in self._client.get_paginator("scan").paginate(TableName=self._name):
            yield from page["Items"]

    def reset(self) -> None:
        there = [item for item in self._scan() if item["pk"]["S"] != "schema"]
        for item in there:
            if item not in self.items:
                self._client.delete_item(TableName=self._name, Key={name: item[name] for name in ("pk", "sk")})
        for item in self.items:
            if item not in there:
                self.put(item)

    def put(self, item: Item) -> None:
        self._client.put_item(TableName=self._name, Item=item)


def damaged(chance: random.Random, item: Item) -> Item:
    """Return an item with one attribute removed, replaced, or taken from elsewhere."""
    names = [name for name in item if name not in ("pk", "sk")]
    if not names:  # it only names a conversation that a purge is to sweep
        return stray(chance, item)
    name = chance.choice(names)
    changed = {key: value for key, value in item.items() if key != name}
    if chance.random() < 0.7:
        changed[name] = chance.choice(VALUES)
    return changed


def stray(chance: random.Random, item: Item) -> Item:
    """Return an item at a key near another's that none of ours has."""
    key = item["sk"]["S"]
    key = chance.choice([f"{key}\t", key[:-1] + chr(ord(key[-1]) ^ 1), f"{key[:1]} ", f"{key[: len(key) // 2]}~"])
    return {**item, "sk": {"S": key}}


def check_use(store: Store, use: Callable[[Store], object]) -> None:
    with suppress(PersistenceError):  # whatever else leaves is the failure
        use(store)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("seed", range(rounds(4)))
def test_damaged_items_are_reported_or_read(
    raw: Raw, repository: DynamoDbRepository, store: Store, other_store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    repository.timeout = other_store.repository.timeout = 1
    for _ in range(8):
        change = damaged if chance.random() < 0.8 else stray
        raw.put(change(chance, chance.choice(raw.items)))
        for use in chance.sample(USES, 4):
            # A store that has seen the heads, and one that has not.
            check_use(chance.choice([store, other_store]), use)
        check_use(store, lambda store: store.namespaces())
        raw.reset()
        repository._seen.clear()


def test_every_attribute_of_every_kind_of_item(raw: Raw, store: Store, other_store: Store) -> None:
    """Each removed once: a head without its version, a run without its text, a pointer without its id."""
    seen = set()
    for item in raw.items:
        for name in item.keys() - {"pk", "sk", "ttl"}:
            kind = item["pk"]["S"].split("#")[:2], item["sk"]["S"][:4], name
            if str(kind) in seen:
                continue
            seen.add(str(kind))
            raw.put({key: value for key, value in item.items() if key != name})
            for use in USES[:11]:
                check_use(other_store, use)
            raw.put(item)
    assert len(seen) > 25
    assert len(walk(store)) == 3


def test_the_head_of_another_conversation_is_corrupt(raw: Raw, store: Store, namespace: str) -> None:
    """As a copy of items by hand could leave it."""
    place = (keys.partition("conversation", namespace, "a"), keys.STATE)
    head = next(item for item in raw.items if (item["pk"]["S"], item["sk"]["S"]) == place)
    raw.put({**head, "id": {"S": "b"}})
    with pytest.raises(CorruptRecordError, match="'b'"):
        store.begin().conversations.get("a")


def test_a_counter_that_cannot_be_read_is_corrupt(raw: Raw, store: Store) -> None:
    counter = next(item for item in raw.items if item["pk"]["S"] == keys.COUNTS)
    for damaged in ({"S": "x"}, {"N": "1.5"}):
        raw.put({**counter, "count": damaged})
        for use in (store.namespaces, store.begin().conversations.count):
            with pytest.raises(CorruptRecordError, match="counts"):
                use()


def test_an_id_that_no_conversation_can_have_is_not_found(store: Store) -> None:
    for impossible in ("a#%", "x" * 5_000):
        assert walk(store, where.id == impossible) == []
