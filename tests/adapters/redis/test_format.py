"""What is stored, byte for byte: a change of it needs a new version of the index, and a migration."""

from datetime import UTC, datetime, timedelta
from typing import Any

from memory import Conversation, Run, Store
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import ORDERS, Keys
from memory.adapters.redis.tokens import Tokens
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import key_of
from memory.port.changes import Change, ChangeSet
from memory.port.index import entries


def decoded(stored: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in stored.items()}


def test_the_stored_format(repository: RedisRepository, client: Any, keys: Keys) -> None:
    record = ConversationRecord("ü 1", '{"n":1,"tags":["a"]}', 1, "", 0, 0, -5, 10**15, 3 * 10**15, 10**6)
    run = RunRecord(0, "r/1", '"question"', '{"a":1.0}', "{}", 7)
    changes = ChangeSet((Change("ü 1", create=record, append=(run, run)),), token="token 1", at=10**15)
    repository.commit("name/space", changes)
    prefix = keys.prefix
    names = {key.decode().removeprefix(prefix) for key in client.scan_iter(f"{prefix}:*")}
    assert names == {
        ":conversation:/name%2Fspace/%C3%BC%201",
        ":runs:/name%2Fspace/%C3%BC%201",
        ":by_id:/name%2Fspace",
        ":by_created_at:/name%2Fspace",
        ":by_updated_at:/name%2Fspace",
        ":by_last_run_at:/name%2Fspace",
        ":by_expires_at:/name%2Fspace",
        ":namespaces",
        ":receipt:/name%2Fspace/token%201",
    }
    stored = decoded(client.hgetall(keys.conversation("name/space", "ü 1")))
    tokens = stored.pop("entries").split("|")
    assert all(len(token) == 12 and token.replace("_", "a").isalnum() for token in tokens)
    assert stored == {
        "namespace": "name/space",
        "id": "ü 1",
        "metadata": '{"n":1,"tags":["a"]}',
        "version": "1",
        "incarnation": "token 1",
        "run_count": "2",
        "last_position": "2",
        "created_at": "-5",
        "updated_at": "1000000000000000",
        "expires_at": "3000000000000000",
        "expires_after": "1000000",
        "last_run_at": "7",
    }
    runs = [f'{n}\n7\nr/1\n{{}}\n"question"\n{{"a":1.0}}'.encode() for n in (1, 2)]
    assert client.zrange(keys.runs("name/space", "ü 1"), 0, -1, withscores=True) == [(runs[0], 1.0), (runs[1], 2.0)]
    scores = {field: client.zscore(keys.order("name/space", field), "ü 1") for field in ORDERS}
    assert scores == {"id": 0, "created_at": -5, "updated_at": 1e15, "last_run_at": 7, "expires_at": 3e15}
    assert client.smembers(keys.namespaces) == {b"name/space"}
    assert client.get(keys.receipt("name/space", "token 1")) == '{"ü 1":[1,"token 1",2,2]}'.encode()


def test_the_tokens() -> None:
    """A digest depends on the namespace, the path and the value; these stand for all."""
    tokens = Tokens("default")
    assert tokens.everything == "bvGHTDX5MLFR"
    assert tokens.of(entries({"n": 1})).split("|") == [
        "M_xT3VoPwDOf",
        "NUHvtpZNKDLg",
        "_uW0fDDqdC_P",
        "bvGHTDX5MLFR",
        "leASoGczzrYX",
        "qcXCJPek5yVv",
        "xWDFpTJVD_mx",
    ]
    other = Tokens("other")
    assert not set(other.of(entries({"n": 1})).split("|")) & set(tokens.of(entries({"n": 1})).split("|"))


def test_fields_that_are_cleared_are_removed(store: Store, client: Any, keys: Keys) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", None, datetime(2100, 1, 1, tzinfo=UTC), expires_after=timedelta(1)))
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = None
        uow.conversations.get("a").expires_after = None
    assert client.hmget(keys.conversation("default", "a"), "expires_at", "expires_after") == [None, None]


def test_the_key_of_a_long_id(store: Store, client: Any, keys: Keys) -> None:
    """Keys and orders have `key_of` the id, the hash the whole one; the receipt too."""
    name = "ü" * 2_000
    with store.begin() as uow:
        uow.conversations.add(Conversation(name))
        uow.runs.append(name, Run(1, 1))
    with store.begin() as uow:
        uow.runs.append(name, Run(2, 2))
    short = key_of(name)
    assert keys.conversation("default", name) == keys.conversation("default", short)
    assert decoded(client.hgetall(keys.conversation("default", short)))["id"] == name
    assert client.zcard(keys.runs("default", short)) == 2
    for field in ORDERS[:-1]:
        assert client.zrange(keys.order("default", field), 0, -1) == [short.encode()]
    assert uow.receipt is not None
    assert uow.receipt.written.keys() == {name}
    assert store.conversations.find()[0].id == name
