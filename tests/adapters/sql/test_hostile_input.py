"""No name, key or value changes the meaning of a statement, reaches another's rows, or fails on one database only."""

import random
from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import pytest

import memory
from memory import Conversation, InvalidValueError, Run, Store, where
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.searching import SqlSearch
from memory.domain.criteria import Criterion
from memory.domain.values import Json
from tests.adapters.sql.checking import assert_consistent

NAMES = [
    "it's",
    '"quoted"',
    "'; DROP TABLE memory_runs; --",
    "100%",
    "%s %(id)s %%",
    "%(namespace)s",
    ":id",
    "?",
    "$1",
    "{id}",
    "back\\slash",
    "a/b",
    "\N{GRINNING FACE}" * 255,
    "É" * 255,
    "\u202eright to left",
    "%",
    "_",
    " ",
]
KEYS = [*NAMES, "", "a.b", "$x", "\x00", "\x00\x01", "\ud800", "\udc00\ud800", "id", "namespace", "k" * 5000]
TEXTS: list[Json] = ["", "\x00", "a\x00b", "\ud83d", "\ud83d\ude00", "\udc00", "\N{GRINNING FACE}", "%s", "'"]
OTHERS: list[Json] = [0, False, None, 1, True, 1.0, -0.0, 2**63, -(2**63), 2**70, 5e-324, [], {}, [None, "", 0]]
VALUES = TEXTS + OTHERS


def engine_is_consistent(store: Store) -> None:
    assert isinstance(store.repository, SqlRepository)
    assert_consistent(store.repository.engine)


@pytest.mark.parametrize("driven_at_most", [0, 2000])
def test_namespaces_with_the_same_ids_and_metadata_are_apart(
    store: Store, monkeypatch: pytest.MonkeyPatch, driven_at_most: int
) -> None:
    """By every way there is to find something, whichever the store takes."""
    monkeypatch.setattr(SqlSearch, "drive_limit", driven_at_most)
    tier, n = where("tier") == "gold", where("n") < 5
    both = {}
    for namespace in ("one", "one ", "other"):
        with store.namespace(namespace).begin() as uow:
            both[namespace] = [Conversation(f"c{n}", metadata={"tier": "gold", "n": n}) for n in range(3)]
            for conversation in both[namespace]:
                uow.conversations.add(conversation)
                uow.runs.append(conversation.id, Run(namespace, None))
    for namespace, mine in both.items():
        with store.namespace(namespace).begin() as uow:
            for criterion in (None, tier, tier & n, tier | n, tier & ~(where("n") > 7), ~(where("n") > 7)):
                assert list(uow.conversations.find(criterion, order="id")) == mine
                assert uow.conversations.count(criterion) == 3
            assert uow.runs.last("c0", 5)[0].input == namespace
            uow.conversations.remove("c0")
    engine_is_consistent(store)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_namespace_a_conversation_and_a_run(shared: Store, name: str) -> None:
    for namespace in (name, f"x{name}"[:255]):
        with shared.namespace(namespace).begin() as uow:
            uow.conversations.add(Conversation(name, metadata={"in": namespace}))
            uow.runs.append(name, Run("q", "a", id=name))
    with shared.namespace(name).begin() as uow:
        assert uow.conversations.get(name).metadata == {"in": name}
        assert uow.runs.last(name, 1)[0].id == name
        assert uow.conversations.count() == 1
        assert [found.id for found in uow.conversations.find(where.id == name)] == [name]
        assert [found.id for found in uow.conversations.find((where("in") == name) & (where.id >= name))] == [name]
    with shared.namespace(name).begin() as uow:
        uow.conversations.remove(name)
    with shared.namespace(f"x{name}"[:255]).begin() as uow:
        assert uow.conversations.count() == 1
    engine_is_consistent(shared)


def test_any_key_of_metadata(store: Store) -> None:
    """Each is found by its own path, and by no other."""
    with store.begin() as uow:
        for n, key in enumerate(KEYS):
            uow.conversations.add(Conversation(f"c{n:02}", metadata={key: key, "nested": {key: n}}))
    with store.begin() as uow:
        for n, key in enumerate(KEYS):
            one = [f"c{n:02}"]
            assert [found.id for found in uow.conversations.find(where((key,)) == key)] == one
            assert [found.id for found in uow.conversations.find(where(("nested", key)) == n)] == one
            assert [found.id for found in uow.conversations.find(where((key,)).exists())] == one
            assert uow.conversations.get(one[0]).metadata == {key: key, "nested": {key: n}}
    engine_is_consistent(store)


def test_any_value_comes_back_and_is_found(store: Store) -> None:
    with store.begin() as uow:
        for n, value in enumerate(VALUES):
            uow.conversations.add(Conversation(f"c{n:02}", metadata={"value": value, "list": [value]}))
            uow.runs.append(f"c{n:02}", Run(value, {"": value}, metadata={"value": value}))
    with store.begin() as uow:
        everything = list(uow.conversations.iterate(order="id"))
        for n, value in enumerate(VALUES):
            (run,) = uow.runs.list(f"c{n:02}")
            for stored in (run.input, run.metadata["value"], uow.conversations.get(f"c{n:02}").metadata["value"]):
                assert repr(stored) == repr(value)
            for criterion in (where("value") == value, where("list").contains(value)):
                found = [found.id for found in uow.conversations.find(criterion, order="id")]
                assert found == [one.id for one in everything if criterion.matches(one)]
                assert f"c{n:02}" in found
    engine_is_consistent(store)


def test_paths_as_long_and_deep_as_they_come(store: Store) -> None:
    deep: Json = "bottom"
    for level in range(99):
        deep = {f"level{level}" * 20: deep}
    with store.begin() as uow:
        uow.conversations.add(Conversation("long", metadata={"k" * 5000: 1, "k" * 4999: 2}))
        uow.conversations.add(Conversation("deep", metadata=deep))  # type: ignore[arg-type]  # a dict
    with store.begin() as uow:
        path = tuple(f"level{level}" * 20 for level in reversed(range(99)))
        assert [found.id for found in uow.conversations.find(where(("k" * 5000,)) == 1)] == ["long"]
        assert [found.id for found in uow.conversations.find(where(("k" * 5000,)) == 2)] == []
        assert [found.id for found in uow.conversations.find(where(path) == "bottom")] == ["deep"]
    engine_is_consistent(store)


def test_the_largest_entry_fits_the_index(store: Store) -> None:
    """The longest namespace, path and value at once, of characters that do not compress: 2,704 bytes are PostgreSQL's limit."""
    chance = random.Random(0)
    letters = [chr(chance.randrange(0x10000, 0x1FFFF)) for _ in range(255)]
    long: list[Json] = [
        "".join(letters),
        chance.getrandbits(14_280),
        -chance.getrandbits(14_280),
        -(1 << 14_280) - 1,
        -int.from_bytes(bytes(chance.choice((0, 0, 1, 7)) for _ in range(1780)), "big"),
    ]
    path = "".join(letters[:127])
    other = store.namespace("".join(letters))
    for n, value in enumerate(long):
        with other.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}" + "".join(letters[2:]), metadata={path: value}))
    with other.begin() as uow:
        for n, value in enumerate(long):
            assert [found.id[:2] for found in uow.conversations.find(where((path,)) == value)] == [f"c{n}"]
    engine_is_consistent(store)


def test_a_value_of_five_megabytes(store: Store) -> None:
    large = "\N{GRINNING FACE}" * 1_250_000
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"large": large}))
        uow.runs.append("c", Run(large, [large]))
    with store.begin() as uow:
        (run,) = uow.runs.list("c")
        assert run.input == large
        assert run.output == [large]
        assert uow.conversations.find(where("large") == large).items[0].metadata == {"large": large}
        assert uow.conversations.count(where("large") == large + "x") == 0


def test_a_unit_of_work_of_ten_thousand_runs_and_a_thousand_conversations(store: Store) -> None:
    with store.begin() as uow:
        for n in range(1000):
            uow.conversations.add(Conversation(f"c{n}", metadata={"n": n}))
        uow.runs.append("c7", *[Run(n, None) for n in range(10_000)])
    with store.begin() as uow:
        assert uow.conversations.count(where("n") >= 500) == 500
        assert sum(1 for _ in uow.runs.iterate("c7")) == 10_000
    engine_is_consistent(store)


MANY = range(2000)
LARGE: dict[str, Callable[[], Criterion]] = {
    "one of many values": lambda: where("n").in_(range(40 * len(MANY))),
    "any of many": lambda: reduce(or_, [where("n") == n for n in MANY]),
    "any of many paths": lambda: reduce(or_, [*[where(f"path{n}") == n for n in MANY], where("n") == 1]),
    "all of many": lambda: reduce(and_, [~(where(f"path{n}") == n) for n in MANY]),
    "any of many that are not": lambda: reduce(or_, [~(where("n") == n) for n in MANY]),
    "many ids": lambda: where.id.in_([f"c{n}" for n in MANY]),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_criterion_too_large_for_a_statement_is_answered_all_the_same(
    shared: Store, request: pytest.FixtureRequest, name: str
) -> None:
    criterion = LARGE[name]()
    store = shared.namespace(request.node.name)
    with store.begin() as uow:
        for n in range(3):
            uow.conversations.add(Conversation(f"c{n}", metadata={"n": n}))
    with store.begin() as uow:
        expected = [found.id for found in uow.conversations.iterate(order="id") if criterion.matches(found)]
        assert [found.id for found in uow.conversations.find(criterion, order="id")] == expected
        assert uow.conversations.count(criterion) == len(expected)


def test_a_criterion_nested_as_deep_as_metadata_is_answered(store: Store) -> None:
    criterion = where("n") == 1
    for level in range(50):
        criterion = (criterion & (where("a") != level)) | (where("b") == level)
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"n": 1}))
    with store.begin() as uow:
        assert uow.conversations.count(criterion) == 1


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**70, -(2**70), 0, -1])
def test_numbers_beyond_the_databases_integers_are_compared_all_the_same(shared: Store, number: int) -> None:
    store = shared.namespace(f"number {number}")
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
        uow.runs.append("c", Run("q", "a"))
    with store.begin() as uow:
        assert uow.conversations.count(where.run_count < number) == (number > 1)
        assert uow.conversations.count(where.run_count >= number) == (number <= 1)
        assert uow.runs.list("c", after=number) == ([] if number > 0 else uow.runs.list("c"))
        assert uow.runs.list("c", before=number) == (uow.runs.list("c") if number > 1 else [])
        assert len(uow.runs.list("c", limit=max(0, number))) == (number > 0)


def test_a_cursor_that_somebody_made_up_is_refused(store: Store) -> None:
    import base64
    import json

    made_up: list[Json] = [
        ["-last_run_at", 2**63, "c"],
        ["-last_run_at", "x", "c"],
        ["-last_run_at", 1.5, "c"],
        ["-last_run_at", True, "c"],
        ["-last_run_at", 1, "a\x00b"],
        ["-last_run_at", 1, "\ud800"],
        ["-last_run_at", 1],
        ["id", "c"],
        [],
        {},
        "x",
    ]
    for content in made_up:
        cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        with store.begin() as uow, pytest.raises(InvalidValueError):
            uow.conversations.find(after=cursor)


@pytest.mark.parametrize("wrong", ["", "a\x00b", "\ud800", "x" * 2_049, "line\nbreak"])
def test_a_name_that_no_store_keeps_is_refused_before_any_statement(store: Store, wrong: str) -> None:
    with pytest.raises(InvalidValueError):
        store.namespace(wrong)
    with store.begin() as uow:
        with pytest.raises(InvalidValueError):
            uow.conversations.get(wrong)
        with pytest.raises(InvalidValueError):
            uow.runs.append(wrong, Run("q", "a"))


def test_the_urls_of_hostile_files(sqlite_url: str) -> None:
    for name in ("it's 100%.db", "%(x)s.db", "a b é.db", "[x].db", ":x.db"):
        url = sqlite_url.replace("conversations.db", name)
        with memory.connect(url) as store:
            store.begin()
            assert name in repr(store) or "%" in repr(store)


def test_numbers_that_begin_alike_for_three_hundred_bytes_keep_their_order(store: Store) -> None:
    """Beyond what a key holds of them, and on both sides of zero."""
    stem = random.Random(0).getrandbits(2600) | 1 << 2599
    numbers: list[int] = [
        sign * n for sign in (1, -1) for n in (stem << 8, (stem << 8) + 1, stem + 1 << 8, stem, stem >> 600)
    ]
    with store.begin() as uow:
        for n, number in enumerate(numbers):
            uow.conversations.add(Conversation(f"c{n}", metadata={"n": number}))
    with store.begin() as uow:
        everything = list(uow.conversations.iterate(order="id"))
        for number in numbers:
            term = where("n")
            for criterion in (
                term == number,
                term < number,
                term <= number,
                term > number,
                term >= number,
                term != number,
            ):
                found = [found.id for found in uow.conversations.find(criterion, order="id")]
                assert found == [one.id for one in everything if criterion.matches(one)]
                assert uow.conversations.count(criterion) == len(found)
