"""Records edited by hand, at random: only errors of ours come of it, and a commit is never half done."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ResponseError

from memory import Conversation, CorruptRecordError, PersistenceError, Run, Store, UnitOfWork, where
from memory.adapters.redis.keys import Keys
from memory.domain.records import RunRecord
from memory.port.changes import Change, ChangeSet
from tests.rounds import rounds

Use = Callable[[UnitOfWork], object]

ODD = (
    *("", " 1", "-1", "0", "1.5", "1e300", "1e9", "nan", "-nan", "inf", "-inf", "0x10", "1_0", "+2", "٣", "x", "\x00"),
    *("2", "9007199254740991", "9007199254740992", "9" * 18, "-" + "9" * 18, "9" * 19, "9" * 5_000, b"\xff\xfe"),
    *("{", "[]", "null", "1", '"text"', '{"n": NaN}', '{"n": 1e999}', "[" * 100_000, '{"a":' * 5_000, '{"\\ud800": 1}'),
)
HASH = (
    *("id", "metadata", "version", "incarnation", "run_count", "last_position", "created_at", "updated_at"),
    *("expires_at", "expires_after", "last_run_at", "open_runs", "namespace", "entries"),
)


def replace_second(uow: UnitOfWork) -> None:
    uow.runs.replace("a", Run("new", "new", position=2))


def edit(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata["n"] = 2


READS: tuple[Use, ...] = (
    lambda uow: uow.conversations.get("a"),
    lambda uow: list(uow.conversations.iterate(order="-updated_at")),
    lambda uow: uow.conversations.find(where("n") == 1, order="id"),
    lambda uow: uow.conversations.count(where("n") < 5),
    lambda uow: uow.runs.last("a", 2),
    lambda uow: uow.runs.list("a", after=1),
)
WRITES: tuple[Use, ...] = (
    lambda uow: uow.runs.append("a", Run("new", "new")),
    lambda uow: uow.runs.append("a", Run("new", "new"), Run("new", "new")),
    lambda uow: uow.runs.append("a", Run("new", "new"), after=3),
    lambda uow: uow.runs.remove("a", 2),
    lambda uow: uow.runs.remove("a", before=3),
    lambda uow: uow.conversations.remove("a"),
    lambda uow: uow.conversations.add(Conversation("a")),
    replace_second,
    edit,
)


def spoil(client: Any, keys: Keys, chance: random.Random) -> None:
    """Edit something of the conversation."""
    key, runs = keys.conversation("default", "a"), keys.runs("default", "a")
    order = chance.choice(keys.sorted_sets("default"))
    odd, position = chance.choice(ODD), chance.randint(1, 4)
    text = odd if isinstance(odd, str) else odd.decode("latin-1")
    lines = [f"{position}", "1", "id", "{}", '"in"', '"out"']
    lines[chance.randint(0, 5)] = text
    spoils: tuple[Callable[[], object], ...] = (
        *[lambda: client.hset(key, chance.choice(HASH), odd)] * 6,
        lambda: client.hdel(key, chance.choice(HASH)),
        *[lambda: edit_run(client, runs, position, "\n".join(lines))] * 3,
        lambda: client.zremrangebyscore(runs, position, position),
        lambda: client.zadd(runs, {odd: chance.choice((0, 2, 2.5, -1, 4, "inf"))}),
        lambda: client.zadd(order, {"a": chance.choice((0, 2.5, -1, 9, 1e17, "inf"))}),
        lambda: client.zrem(order, "a"),
        lambda: client.zadd(order, {odd: 1}),
        lambda: client.delete(chance.choice((key, runs, order))),
        lambda: client.set(chance.choice((key, runs, order)), odd),
    )
    with suppress(ResponseError):  # what was spoiled before
        chance.choice(spoils)()


def edit_run(client: Any, key: str, position: int, member: str) -> None:
    client.zremrangebyscore(key, position, position)
    client.zadd(key, {member: position})


def dump(client: Any, keys: Keys) -> dict[bytes, bytes]:
    return {
        key: client.dump(key) for key in client.scan_iter(f"{keys.prefix}:*", count=10_000) if b":receipt:" not in key
    }


def attempt(use: Callable[[], object]) -> bool:
    try:
        use()
    except PersistenceError as error:
        del error
        return False
    return True


def test_what_is_edited_at_random(store: Store, client: Any, keys: Keys) -> None:
    chance = random.Random(9)
    for _ in range(rounds(60)):
        for key in client.scan_iter(f"{keys.prefix}:*", count=10_000):
            client.delete(key)
        with store.begin() as uow:
            for name in ("0", "a"):
                uow.conversations.add(Conversation(name, {"n": 1}))
                uow.runs.append(name, Run(1, 1), Run(2, 2), Run(3, 3))
        for _ in range(chance.choice((1, 1, 2))):
            spoil(client, keys, chance)
        for read in READS:
            attempt(lambda read=read: read(store.begin()))  # type: ignore[misc]
        for write in chance.sample(WRITES, 4):
            before = dump(client, keys)
            uow = store.begin()
            uow.runs.append("0", Run("with", "it"))
            written = attempt(lambda: (write(uow), uow.commit()))  # noqa: B023
            changed = dump(client, keys)
            other = keys.conversation("default", "0")
            assert written == (changed[other.encode()] != before[other.encode()])
            assert written or changed == before, "half a commit"


@pytest.mark.parametrize("field", ["version", "run_count", "last_position", "updated_at"])
def test_a_number_that_is_none_of_ours(store: Store, client: Any, keys: Keys, field: str) -> None:
    """Lua's tonumber and Python's int take nan, inf, 0x10, 1_0 and others, each other ones."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}))
        uow.runs.append("a", Run(1, 1))
    for odd in ("", " 1", "1.5", "1e300", "1e9", "nan", "-nan", "inf", "0x10", "1_0", "+2", "٣", "9" * 19, "9" * 5_000):
        client.hset(keys.conversation("default", "a"), field, odd)
        before = dump(client, keys)
        for use in (READS[0], *WRITES[:2]):
            with pytest.raises(CorruptRecordError), store.begin() as uow:
                use(uow)
            assert dump(client, keys) == before


def test_a_receipt_edited_by_hand(store: Store, client: Any, keys: Keys) -> None:
    store.begin().conversations.find()
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
    for odd in (*ODD, '[["1"]]', '[{"a":1}]', '[["1","x","1",[]]]', '["","",""]'):
        run = RunRecord(0, "id", '"x"', '"x"', "{}", 1)
        changes = ChangeSet.of([Change("a", append=(run,))], at=1)
        client.set(keys.receipt("default", changes.token), odd)
        with pytest.raises(CorruptRecordError, match="receipt"):
            store.repository.commit("default", changes)


@pytest.mark.parametrize("runs", [0, 2])
def test_a_conversation_whose_hash_is_gone(store: Store, client: Any, keys: Keys, runs: int) -> None:
    """As after FT.DROPINDEX ... DD: reported as damaged, with what to do, and mended by that."""
    for mend in (WRITES[6], WRITES[5]):
        with store.begin() as uow:
            uow.conversations.add(Conversation("a"))
            uow.runs.append("a", *[Run(n, n) for n in range(runs)])
        client.delete(keys.conversation("default", "a"))
        for use in (*READS[:2], *READS[4:], *WRITES[:5], replace_second):
            with pytest.raises(CorruptRecordError, match="remove or add the conversation"), store.begin() as uow:
                use(uow)
        with store.begin() as uow:
            mend(uow)
        assert not client.exists(keys.runs("default", "a"))
        uow = store.begin()
        assert "a" not in uow.conversations or uow.runs.list("a") == []
        if "a" in uow.conversations:
            uow.conversations.remove("a")
            uow.commit()
