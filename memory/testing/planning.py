"""Promises of the planner and the index on every store: unindexed keys, long lists, orders by metadata, total counts."""

from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import Conversation
from memory.domain.values import Json, to_datetime
from memory.port.index import INDEXED_ELEMENTS, LONGEST_KEY
from memory.testing.base import Clock, Contract, do, put, run, walk

SORTED: tuple[Json, ...] = (
    *(None, False, True, -(2**70), -1.5, 0, 1, 2**53, 2**53 + 1),
    *("", "A", "a", "a\x00", "b" * (LONGEST_KEY - 1), "b" * LONGEST_KEY, "\uffff", "\U0001f600"),
    [],
    {},
)
"""Values, in the order of their index keys."""


class Planning(Contract):
    """Results do not depend on which keys are indexed, or on the planner's choice."""

    def test_unindexed_keys_are_found(self, store: Store) -> None:
        """Keys that begin with an underscore are not indexed, but every criterion on them returns the right result."""
        put(store, "a", {"_name": "ada", "tier": "gold", "deep": {"_n": 1}})
        put(store, "b", {"_name": "bob", "tier": "gold", "deep": {"_n": 2}, "_tags": ["x"]})
        put(store, "c", {"tier": "free", "_": None})
        conversations = store.begin().conversations
        for criterion, expected in (
            (where("_name") == "ada", ["a"]),
            (where("_name").exists(), ["a", "b"]),
            (~where("_name").exists(), ["c"]),
            ((where("tier") == "gold") & (where("_name") != "ada"), ["b"]),
            ((where("_name") == "ada") | (where("tier") == "free"), ["a", "c"]),
            (where(("deep", "_n")) > 1, ["b"]),
            (where("_tags").contains("x"), ["b"]),
            (where("_").exists(), ["c"]),
        ):
            assert [one.id for one in walk(store, criterion)] == expected, criterion
            assert conversations.count(criterion) == len(expected), criterion

    def test_every_element_of_a_long_list_is_found(self, store: Store) -> None:
        """A criterion on a list element finds it in a list of any length, and not after it was removed from the list."""
        put(store, "long", {"tags": list(range(3 * INDEXED_ELEMENTS))})
        put(store, "just", {"tags": list(range(INDEXED_ELEMENTS))})
        put(store, "short", {"tags": [0, 1]})
        for element, expected in (
            (0, ["just", "long", "short"]),
            (INDEXED_ELEMENTS - 1, ["just", "long"]),
            (INDEXED_ELEMENTS, ["long"]),
            (3 * INDEXED_ELEMENTS - 1, ["long"]),
            (3 * INDEXED_ELEMENTS, []),
        ):
            assert [one.id for one in walk(store, where("tags").contains(element))] == expected, element
            assert store.begin().conversations.count(where("tags").contains(element)) == len(expected)
        do(store, lambda uow: uow.conversations.get("long").metadata.update(tags=[7]))
        assert [one.id for one in walk(store, where("tags").contains(INDEXED_ELEMENTS))] == []
        assert [one.id for one in walk(store, where("tags").contains(7))] == ["just", "long"]

    def test_order_by_metadata(self, store: Store) -> None:
        """An order by a metadata path returns the conversations with that path by value, then by id, in both directions."""
        for n, value in enumerate(SORTED):
            for copy in "ba":
                put(store, f"{n:02}{copy}", {"deep": {"v": value}, "even": n % 2 == 0})
        put(store, "without", {"deep": {}, "even": True})
        put(store, "other", {"deep": 1})
        expected = [f"{n:02}{copy}" for n in range(len(SORTED)) for copy in "ab"]
        even = [one for one in expected if int(one[:2]) % 2 == 0]
        for limit in (1, 3, 50):
            for order, sign in (("metadata.deep.v", 1), ("-metadata.deep.v", -1)):
                assert [one.id for one in walk(store, order=order, limit=limit)] == expected[::sign]
                assert [one.id for one in walk(store, where("even") == True, order=order, limit=limit)] == even[::sign]  # noqa: E712
        assert [one.id for one in walk(store, where("deep.v") > 0, order="-metadata.deep.v")] == [
            one for one in reversed(expected) if one[:2] in ("06", "07", "08")
        ]
        do(store, lambda uow: uow.conversations.get("00a").metadata.update(deep={"v": "z"}))
        assert [one.id for one in walk(store, order="-metadata.deep.v")][4:9] == ["16b", "16a", "15b", "15a", "00a"]
        do(store, lambda uow: uow.conversations.remove("16b"))
        assert [one.id for one in walk(store, order="-metadata.deep.v")][4:7] == ["16a", "15b", "15a"]

    def test_total_count_follows_every_change(self, store: Store, clock: Clock) -> None:
        """Counting without a criterion returns the number of conversations, without removed, replaced and expired ones."""

        def counted() -> int:
            with store.begin() as uow:
                assert uow.conversations.count() == len(walk(store))
                return uow.conversations.count()

        assert counted() == 0
        for n in range(4):
            put(store, f"c{n}", {"n": n}, run())
        assert counted() == 4
        do(store, lambda uow: uow.runs.append("c0", run()))
        do(store, lambda uow: uow.conversations.remove("c0"))
        do(store, lambda uow: uow.conversations.remove("c1"), lambda uow: uow.conversations.add(Conversation("c1")))
        assert counted() == 3
        soon = to_datetime(clock.time + 10_000_000)
        with store.begin() as uow:
            uow.conversations.get("c2").expires_at = soon
        do(store, lambda uow: uow.conversations.add(Conversation("soon", expires_at=soon)))
        assert counted() == 4
        clock.advance(10_000_000)
        assert counted() == 2
        put(store, "soon")  # replaces an expired conversation
        assert counted() == 3
        store.purge_expired()
        assert counted() == 3
