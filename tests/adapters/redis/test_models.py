"""redis-om reads and searches what is stored, with fields that its users understand."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from redis_om import NotFoundError

from memory import Conversation, Run, Store, where
from memory.adapters.redis.models import conversation_model, entry_token, primary_key
from memory.domain.values import to_datetime
from tests.servers import Server

DOCUMENT = Path(__file__).parents[3] / "docs/redis.md"
NAMES = (
    "default",
    "tenant-a",
    "a b",
    "A B",
    "a,b.c<d>e{f}[g]\"h'i:j;k!l@m#n$o%p^q&r*s(t)u-v+w=x~y/z",
    "ü/€/😀",
    "x" * 200,
)
"""Namespaces that redis-om 1.2 escapes correctly."""

UNESCAPED = ("a|b", "a?b", "a`b")
"""Namespaces that redis-om 1.2 leaves as they are in a query's text, where they mean something else."""


@pytest.fixture
def model(redis_server: Server, prefix: str) -> Iterator[Any]:
    with redis_py.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield conversation_model(client, prefix)


def add(store: Store, conversation_id: str, **metadata: Any) -> datetime:
    """Make a conversation with a run; return when it was updated."""
    with store.begin() as uow:
        uow.conversations.add(Conversation(conversation_id, metadata))
        uow.runs.append(conversation_id, Run("in", "out"))
    updated_at = store.begin().conversations.get(conversation_id).updated_at
    assert updated_at is not None
    return updated_at


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_get(store: Store, model: Any) -> None:
    updated_at = add(store, "a b", n=1)
    found = model.get(primary_key("default", "a b"))
    assert (found.namespace, found.id, found.metadata) == ("default", "a b", '{"n":1}')
    assert (found.run_count, found.last_position, found.version) == (1, 1, 1)
    assert to_datetime(found.updated_at) == updated_at
    assert found.expires_at is None
    with pytest.raises(NotFoundError):
        model.get(primary_key("other", "a b"))


def test_find_by_namespace_and_time(store: Store, model: Any) -> None:
    since = [add(store, f"c{n}") for n in range(4)][1]
    add(store.namespace("other"), "c9")
    is_default = model.namespace == "default"
    assert [
        one.id for one in model.find(is_default & (model.updated_at > micros(since))).sort_by("updated_at").all()
    ] == [
        "c2",
        "c3",
    ]
    assert {one.id for one in model.find(is_default & (model.created_at <= micros(since))).all()} == {"c0", "c1"}
    assert model.find(is_default & (model.run_count >= 1)).count() == 4
    assert model.find(model.run_count > 1).all() == []


def test_what_is_found_has_its_primary_key(store: Store, model: Any) -> None:
    add(store, "a b")
    (found,) = model.find(model.namespace == "default").all()
    assert found.pk == primary_key("default", "a b")
    assert model.get(found.pk) == found


@pytest.mark.parametrize("namespace", NAMES)
def test_namespaces_that_redis_om_escapes(store: Store, model: Any, namespace: str) -> None:
    for one in NAMES:
        add(store.namespace(one), "a")
    assert [one.namespace for one in model.find(model.namespace == namespace).all()] == [namespace]


@pytest.mark.parametrize("namespace", UNESCAPED)
def test_namespaces_that_redis_om_cannot_escape(store: Store, model: Any, namespace: str) -> None:
    """A release that can is welcome: then they move to `NAMES`, and out of docs/redis.md."""
    add(store.namespace(namespace), "a")
    try:
        found = [one.namespace for one in model.find(model.namespace == namespace).all()]
    except redis_py.ResponseError:
        found = []
    assert found == []


def test_blanks_around_a_namespace(store: Store, model: Any) -> None:
    """The server trims them in the index; the store does not search by this field."""
    for namespace in ("a", " a "):
        add(store.namespace(namespace), "x", n=1)
        assert store.namespace(namespace).begin().conversations.count(where("n") == 1) == 1
    assert {one.namespace for one in model.find(model.namespace == "a").all()} == {"a", " a "}


def test_find_by_metadata(store: Store, model: Any) -> None:
    add(store, "gold", customer={"tier": "gold"}, n=3)
    add(store, "free", customer={"tier": "free"}, n=3.0)
    add(store.namespace("other"), "other", customer={"tier": "gold"})
    gold, three = entry_token("default", "customer.tier", "gold"), entry_token("default", "n", 3)
    assert [one.id for one in model.find(model.entries == gold).all()] == ["gold"]
    assert {one.id for one in model.find(model.entries == three).all()} == {"gold", "free"}
    assert [one.id for one in model.find((model.entries == three) & (model.entries != gold)).all()] == ["free"]


def test_the_example_of_the_documentation(redis_server: Server, url: str, store: Store, prefix: str) -> None:
    text = re.search(r"^```py\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert text
    code = (
        text[1]
        .replace("redis://localhost", url)
        .replace("conversation_model(client)", f"conversation_model(client, {prefix!r})")
    )
    code = code.replace('redis.Redis(host="localhost", ', f"redis.Redis.from_url({redis_server.url!r}, ")
    names: dict[str, Any] = {}
    exec(compile(code, DOCUMENT.name, "exec"), names)
    assert [one.id for one in names["recent"]] == [one.id for one in names["gold"]] == ["support-42"]
    assert names["chat"].metadata == '{"customer":{"tier":"gold"}}'
    assert store.begin().conversations.count() == 1
