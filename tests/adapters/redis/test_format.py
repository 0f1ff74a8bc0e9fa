"""What is stored, byte for byte: a change of it needs a new version of the index, and a migration."""

from datetime import UTC, datetime
from typing import Any

from memory import Conversation, Run, Store
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.tokens import Tokens
from memory.domain.records import ConversationRecord, RunRecord
from memory.port.changes import Change, ChangeSet
from memory.port.index import entries


def decoded(stored: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in stored.items()}


def test_the_stored_format(repository: RedisRepository, client: Any, keys: Keys) -> None:
    record = ConversationRecord("ü 1", '{"n":1,"tags":["a"]}', 1, "", 0, 0, -5, 10**15, 3 * 10**15)
    run = RunRecord(0, "r/1", '"question"', '{"a":1.0}', "{}", 7)
    changes = ChangeSet((Change("ü 1", create=record, append=(run, run)),), token="token 1", at=10**15)
    repository.commit("name/space", changes)
    prefix = keys.prefix
    names = {key.decode().removeprefix(prefix) for key in client.scan_iter(f"{prefix}:*")}
    assert names == {
        ":conversation:{name%2Fspace/%C3%BC%201}",
        ":positions:{name%2Fspace/%C3%BC%201}",
        ":run:{name%2Fspace/%C3%BC%201}:1",
        ":run:{name%2Fspace/%C3%BC%201}:2",
        ":receipt:{name%2Fspace/token%201}",
    }
    stored = decoded(client.hgetall(keys.conversation("name/space", "ü 1")))
    tokens = stored.pop("entries").split("|")
    assert stored.pop("namespace").isascii()
    assert stored == {
        "id": "ü 1",
        "metadata": '{"n":1,"tags":["a"]}',
        "version": "1",
        "incarnation": "token 1",
        "run_count": "2",
        "last_position": "2",
        "created_at": "-5",
        "updated_at": "1000000000000000",
        "expires_at": "3000000000000000",
        "encoding": "1",
        "by_created_at": "-5",
        "by_updated_at": "1000000000000000",
        "by_id": "c3bc2031",
        "by_id_1": str(int.from_bytes(b"\xc3\xbc 1\x00\x00", "big")),
        "by_id_2": "0",
        "by_id_3": "0",
    }
    assert all(len(token) == 20 and token.replace("_", "a").isalnum() for token in tokens)
    assert decoded(client.hgetall(f"{keys.runs('name/space', 'ü 1')}2")) == {
        "id": "r/1",
        "input": '"question"',
        "output": '{"a":1.0}',
        "metadata": "{}",
        "created_at": "7",
    }
    assert client.zrange(keys.positions("name/space", "ü 1"), 0, -1, withscores=True) == [(b"1", 1.0), (b"2", 2.0)]
    assert client.get(keys.receipt("name/space", "token 1")) == b'[["1","token 1","2","2"]]'


def test_the_tokens() -> None:
    """A digest depends on the prefix, the namespace, the path and the value; these stand for all."""
    tokens = Tokens("memory", "default")
    assert tokens.namespace == "HGVRilQ66cQ_gaMWuHk7"
    assert tokens.of(entries({"n": 1})).split("|") == [
        "12Ve3m9nBvSUUsJSjM_0",
        "Ia9s83rh0msnV_zMhD4F",
        "QLDZUYylfgwqSrgrXAAW",
        "QV267SeVQ9fVpAVvAppd",
        "YG0XgLBW1vB_v2oKoMJe",
        "au8LPcGRWIl_MLuL0dJd",
        "oc5GwMCPhv8T75w45C_m",
        "rWjf7Q2wFjzJNUQ2Yf_R",
    ]
    others = [Tokens("memory", "other"), Tokens("memory2", "default"), Tokens("memory\x00default", "")]
    assert all(
        not set(other.of(entries({"n": 1})).split("|")) & set(tokens.of(entries({"n": 1})).split("|"))
        for other in others
    )


def test_redis_om_reads_what_is_stored(store: Store, repository: RedisRepository) -> None:
    """The models are the schema and the mapping: what is written by the script, they read."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a b", {"n": 1}))
        uow.runs.append("a b", Run("in", "out"))
    conversation: Any = repository.models.conversation.get("{default/a%20b}")
    assert (conversation.id, conversation.metadata, conversation.run_count) == ("a b", '{"n":1}', 1)
    assert conversation.expires_at is None
    run: Any = repository.models.run.get("{default/a%20b}:1")
    assert (run.input, run.output, run.metadata) == ('"in"', '"out"', "{}")


def test_fields_that_are_cleared_are_removed(store: Store, client: Any, keys: Keys) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=datetime(2100, 1, 1, tzinfo=UTC)))
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = None
    assert client.hexists(keys.conversation("default", "a"), "expires_at") is False
