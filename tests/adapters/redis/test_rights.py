"""Users with fewer rights than a commit needs: it is refused before it has written anything, with an error of ours."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import (
    CommitInDoubtError,
    ConfigurationError,
    Conversation,
    Run,
    Store,
    StoreUnavailableError,
    UnitOfWork,
    where,
)
from memory.adapters.redis.committing import COMMIT
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.schema import HEAD
from memory.adapters.redis.searching import _WALK
from memory.domain.entities import PENDING
from memory.domain.records import RunRecord
from memory.domain.values import new_id
from memory.port.changes import Change, ChangeSet
from tests.servers import Server

Work = Callable[[UnitOfWork], object]

DOCUMENT = Path(__file__).parents[3] / "docs/redis.md"
LATER = datetime(2200, 1, 1, tzinfo=UTC)
SCRIPTS = [file.read_text("utf-8") for file in files("memory.adapters.redis").iterdir() if file.name.endswith(".lua")]
CALLED = re.compile(r"(?:redis\.p?call|look)\('([A-Z]+)'")
KINDS = (
    "conversation:",
    "runs:",
    "by_id:",
    "by_created_at:",
    "by_updated_at:",
    "by_last_run_at:",
    "by_expires_at:",
    "open_runs:",
    "namespaces",
    "receipt:",
)
COMMANDS = sorted({command for script in SCRIPTS for command in CALLED.findall(script)})


def clear_and_expire(uow: UnitOfWork) -> None:
    """Something to one conversation, then a change of another that leaves it without runs and with an end."""
    uow.runs.append("b", Run(0, 0))
    uow.conversations.get("a").expires_at = LATER
    uow.runs.clear("a")


def edit_runs(uow: UnitOfWork) -> None:
    uow.runs.remove("a", 1)
    uow.runs.replace("a", Run("new", "new", position=2))
    uow.runs.append("a", Run(4, 4), Run(5, 5))


def make_anew(uow: UnitOfWork) -> None:
    uow.conversations.remove("expiring")
    uow.conversations.add(Conversation("expiring"))
    uow.runs.append("expiring", Run(1, 1))


def never_expire(uow: UnitOfWork) -> None:
    uow.runs.append("a", Run(0, 0))
    uow.conversations.get("expiring").expires_at = None


def open_and_complete(uow: UnitOfWork) -> None:
    uow.runs.append("a", Run(0, PENDING, id="new"))
    uow.runs.complete("expiring", "open", output=1)


WORK: dict[str, Work] = {
    "open and complete": open_and_complete,
    "clear and expire": clear_and_expire,
    "edit runs": edit_runs,
    "make anew": make_anew,
    "never expire": never_expire,
    "append": lambda uow: uow.runs.append("a", Run(4, 4)),
    "append to what expires": lambda uow: uow.runs.append("expiring", Run(4, 4)),
    "remove": lambda uow: uow.conversations.remove("a"),
}


def fill(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}))
        uow.runs.append("a", *[Run(n, n) for n in range(3)])
        uow.conversations.add(Conversation("b", {"n": 1}))
        uow.conversations.add(Conversation("expiring", expires_at=LATER))
        uow.runs.append("expiring", Run(1, 1), Run(2, PENDING, id="open"))


def everything(client: Any, keys: Keys) -> dict[bytes, tuple[bytes, int]]:
    """Return what is at all keys of a store, and when it ends."""
    return {key: (client.dump(key), client.pexpiretime(key)) for key in client.scan_iter(f"{keys.prefix}:*")}


@contextmanager
def a_user(client: Any, server: Server, keys: Keys, *rules: str) -> Iterator[Store]:
    """A store as a user of these rights sees it, its index checked already."""
    name = f"user-{new_id()}"
    client.execute_command("ACL", "SETUSER", name, "reset", "on", ">pw", *rules)
    url = f"{server.url.replace('redis://', f'redis://{name}:pw@')}?prefix={keys.prefix}"
    try:
        with memory.connect(url) as store:
            yield store
    finally:
        client.acl_deluser(name)


def attempt(client: Any, keys: Keys, store: Store, work: Work) -> bool:
    """Tell whether a user could do some work; if not, nothing of it may be there."""
    before = everything(client, keys)
    try:
        with store.begin() as uow:
            work(uow)
    except ConfigurationError as error:
        assert isinstance(error.__cause__, redis_py.exceptions.RedisError)  # noqa: PT017  # where there is an error
        assert everything(client, keys) == before
        return False
    assert everything(client, keys) != before
    return True


@pytest.mark.parametrize("command", COMMANDS)
def test_a_right_that_is_missing_leaves_nothing_half_written(
    store: Store, client: Any, redis_server: Server, keys: Keys, command: str
) -> None:
    with a_user(client, redis_server, keys, "+@all", f"-{command}", f"~{keys.prefix}:*") as lacking:
        done = []
        for namespace, work in WORK.items():
            fill(store.namespace(namespace))
            done.append(attempt(client, keys, lacking.namespace(namespace), work))
        past = datetime(2020, 1, 1, tzinfo=UTC)
        with store.namespace("purged").begin() as uow:
            uow.conversations.add(Conversation("a", expires_at=past))
            uow.runs.append("a", Run(1, 1))
        before = everything(client, keys)
        try:
            assert lacking.namespace("purged").purge_expired() == 1
        except ConfigurationError:
            assert everything(client, keys) == before
            done.append(False)
        assert not all(done)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_may_only_be_read_leave_nothing_half_written(
    store: Store, client: Any, redis_server: Server, keys: Keys, kind: str
) -> None:
    rights = [
        f"%R~{keys.prefix}:*",
        *(f"~{keys.prefix}:{other}*" for other in KINDS if other != kind),
        f"~{keys.index}",
    ]
    with a_user(client, redis_server, keys, "+@all", *rights) as reader:
        done = []
        for namespace, work in WORK.items():
            fill(store.namespace(namespace))
            done.append(attempt(client, keys, reader.namespace(namespace), work))
        assert not all(done)
        assert any(done) == (kind in ("namespaces", "by_id:", "by_created_at:", "open_runs:"))


def documented() -> tuple[list[str], list[str]]:
    """Return the rights that docs/redis.md names, for use and in addition for migration."""
    using, migrating = re.findall(r"^ACL SETUSER \w+ (.*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    return using.partition("~memory:* ")[2].split(), migrating.split()


@pytest.mark.usefixtures("store")
def test_the_documented_rights_are_enough(client: Any, redis_server: Server, keys: Keys) -> None:
    using, migrating = documented()
    with a_user(client, redis_server, keys, f"~{keys.prefix}:*", *using) as user:
        for namespace, work in WORK.items():
            fill(user.namespace(namespace))
            assert attempt(client, keys, user.namespace(namespace), work)
            seen = user.namespace(namespace).begin()
            assert len(seen.conversations.find()) == seen.conversations.count()
            assert all(len(seen.runs.last(one.id, 9)) == one.run_count for one in seen.conversations.find())
        assert set(user.namespaces()) == set(WORK)
        assert user.purge_expired() == 0
    client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}")
    with a_user(client, redis_server, keys, f"~{keys.prefix}:*", *using, *migrating) as user:
        assert user.migrate().is_current


def test_each_documented_right_is_needed(
    store: Store, client: Any, redis_server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.adapters.redis.searching._AT_ONCE", 1)
    monkeypatch.setattr("memory.adapters.redis.searching._FEW", 1)
    using = [right for right in documented()[0] if right != "+@connection"]  # which is for migration and the driver
    for n, missing in enumerate(using):
        rest = [right for right in using if right != missing]
        one = store.namespace(f"{n}")
        fill(one)
        with a_user(client, redis_server, keys, f"~{keys.prefix}:*", *rest) as user, pytest.raises(ConfigurationError):
            use(user.namespace(f"{n}"))


def use(store: Store) -> None:
    with store.begin() as uow:
        clear_and_expire(uow)
    assert store.begin().conversations.count() == 3
    assert len(store.begin().conversations.find(where("n") == 1)) == 2


def test_a_refusal_that_nobody_knows_is_an_error_of_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a commit it does not tell whether something is written, of all else it does."""
    fill(store)
    run = RunRecord(0, "id", '"x"', '"x"', "{}", 1)
    changes = ChangeSet.of([Change("a", append=(run, run))], at=1)
    for script in (COMMIT, _WALK):
        monkeypatch.setattr(script, "source", "return redis.error_reply('ODD thing')")
        monkeypatch.setattr(script, "sha", "0" * 40)  # of no script that the server knows
    with pytest.raises(CommitInDoubtError, match="thing") as in_doubt:
        store.repository.commit("default", changes)
    assert isinstance(in_doubt.value.__cause__, redis_py.exceptions.ResponseError)
    with pytest.raises(StoreUnavailableError, match="thing") as refused:
        store.begin().conversations.find()
    assert isinstance(refused.value.__cause__, redis_py.exceptions.ResponseError)
