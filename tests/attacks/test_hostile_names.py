"""Names and cursors made to reach what is another's."""

import base64
import json
import random
from contextlib import suppress
from itertools import product

import pytest

from memory import InvalidValueError, Run, Store, where
from memory.domain.values import new_id
from memory.testing.base import put
from tests.rounds import rounds

NAMES = (
    "a", "A", " a", "a ", "a\xa0", "a|b", "a,b", "a:b", "a::b", "a/b", "a\\b", "a.b", "a*", "a?", "a%", "a_",
    "a#b", "a&b=c", "{a}", "[a]", "(a|b)", "@a:{b}", "~a", "-a", "'a'", '"a"', "`a`", "$a", "%s", "%(id)s",
    "{0}", "\U0001f600", "\xe9", "e\u0301", "\xdf", "ss", "\ufeffa", "\u200ba", "\u202ea", "\uffff",
    "\U0010ffff", "null", "None", "0", "1e3", "nan", "..", "../a", "a" * 255,
)  # fmt: skip


def test_names_reach_nobody_else(store: Store) -> None:
    """Each conversation of each namespace is found under its own names only, in every way there is."""
    chance = random.Random(3)
    ids, spaces = (
        chance.sample(NAMES, k=8 * min(rounds(1), 6)),
        [*chance.sample(NAMES, k=3 * min(rounds(1), 8)), "a", "a:b"],
    )
    for space in set(spaces):
        for name in ids:
            put(store.namespace(space), name, {"where": [space, name], name: space}, Run([space, name], ""))
    for space in set(spaces):
        uow = store.namespace(space).begin()
        assert uow.conversations.count() == len(ids)
        for name in ids:
            assert uow.conversations.get(name).metadata["where"] == [space, name]
            assert [run.input for run in uow.runs.list(name)] == [[space, name]]
            found = uow.conversations.find(where((name,)) == space)
            assert [one.id for one in found] == [name]
            assert [one.id for one in uow.conversations.find(where.id == name)] == [name]


def forged(cursor: str, chance: random.Random) -> str:
    """Return a cursor with something in it changed."""
    parts = json.loads(base64.urlsafe_b64decode(cursor))
    odd: tuple[object, ...] = (
        None,
        -1,
        2**63,
        2**70,
        1.5,
        float("nan"),
        True,
        "",
        "x" * 300,
        "\x00",
        [],
        {},
        "-id",
        "a' OR '1'='1",
        "\ud800",
    )
    if chance.random() < 0.5:
        parts[chance.randrange(len(parts))] = chance.choice(odd)
    else:
        parts.insert(chance.randrange(len(parts) + 1), chance.choice(odd))
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def test_forged_cursors_show_nothing_else(store: Store) -> None:
    """A cursor that was tampered with is refused, or pages within the namespace."""
    chance = random.Random(5)
    other = store.namespace(new_id())
    for one in (store, other):
        for n in range(5):
            put(one, f"{one.namespace_name}-{n}")
    for order, _ in product(("updated_at", "-created_at", "id"), range(rounds(8))):
        cursor = store.begin().conversations.find(order=order, limit=2).cursor
        assert cursor is not None
        with suppress(InvalidValueError):
            page = store.begin().conversations.find(order=order, limit=5, after=forged(cursor, chance))
            assert all(one.id.startswith(store.namespace_name) for one in page)


@pytest.mark.parametrize("cursor", ["é", "====", "\x00", base64.urlsafe_b64encode(b"[" * 100_000).decode()])
def test_what_is_no_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidValueError, match="cursor"):
        store.begin().conversations.find(after=cursor)
