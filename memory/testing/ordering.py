"""The order of runs and conversations, windows and pages, and the isolation of namespaces."""

from dataclasses import replace
from itertools import product

import pytest

from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.domain.values import new_id, to_datetime
from memory.errors import NotFoundError
from memory.port.paging import OrderField
from memory.testing.base import (
    Clock,
    Contract,
    Work,
    do,
    put,
    put_all,
    read,
    read_runs,
    run,
    run_states,
    sibling,
    snapshot,
    states,
    unchanged,
    walk,
)

HUGE = 2**70
# UTF-16 and locale collations sort them differently.
IDS = ("B", "a", "Z", "b", "\u00e9", "\uffff", "😀", "a b", "10", "9")
ORDERS: tuple[OrderField, ...] = ("last_run_at", "updated_at", "created_at", "id")


class Times(Contract):
    """Timestamps come from the clocks of the writers, which may differ."""

    def test_every_write_sets_updated_at(self, store: Store, clock: Clock) -> None:
        """Any write sets updated_at to the time of the commit, but never moves it back; created_at does not change."""
        writes: tuple[Work, ...] = (
            lambda uow: uow.runs.append("a", run()),
            lambda uow: uow.runs.append("a", run(), run()),
            lambda uow: uow.runs.append("a", run(), after=2),
            lambda uow: uow.runs.replace("a", replace(run("new"), position=2)),
            lambda uow: uow.runs.remove("a", 1),
            lambda uow: uow.runs.clear("a"),
            lambda uow: uow.conversations.get("a").metadata.update(new=1),
            lambda uow: setattr(uow.conversations.get("a"), "expires_at", to_datetime(clock.time + 10**9)),
        )
        start = clock.time
        for write, later in product(writes, (1_000_000, -300_000_000)):
            other = sibling(store)
            clock.time = start
            put(other, "a", None, run())
            clock.advance()
            do(other, lambda uow: uow.runs.append("a", run()))
            before = clock.time
            clock.advance(later)
            do(other, write)
            latest = to_datetime(max(before, clock.time))
            stored = read(other, "a")
            assert (stored.created_at, stored.updated_at) == (to_datetime(start), latest)
            assert [one.id for one in other.begin().conversations.find(where.updated_at >= latest)] == ["a"]


class Positions(Contract):
    """Each run has a position, which the store assigns only once."""

    def test_positions_count_from_one(self, store: Store) -> None:
        """Runs get positions 1, 2, 3 ... in the order in which they were appended, also over several commits."""
        given = [run(n) for n in range(5)]
        put(store, "a", None, *given[:2])
        with store.begin() as uow:
            uow.runs.append("a", given[2])
            uow.runs.append("a", given[3], given[4])
        expected = [replace(one, position=n) for n, one in enumerate(given, 1)]
        assert run_states(read_runs(store, "a")) == run_states(expected)
        stored = read(store, "a")
        assert (stored.run_count, stored.last_position, stored.version) == (5, 5, 1)

    def test_positions_are_never_reused(self, store: Store) -> None:
        """A removed run's position is not reused, whether the last run, the first ones or all are removed."""
        put(store, "a", None, run(1), run(2), run(3))
        steps: tuple[tuple[Work, list[int]], ...] = (
            (lambda uow: uow.runs.remove("a", 3), [1, 2, 4]),
            (lambda uow: uow.runs.remove("a", before=4), [4, 5]),
            (lambda uow: uow.runs.clear("a"), [6]),
        )
        for remove, left in steps:
            do(store, remove)
            do(store, lambda uow: uow.runs.append("a", run()))
            assert [one.position for one in read_runs(store, "a")] == left
            stored = read(store, "a")
            assert (stored.run_count, stored.last_position) == (len(left), left[-1])

    def test_append_and_clear_in_one_unit_of_work(self, store: Store) -> None:
        """A run appended by the unit of work that clears the runs is kept, at the next position."""
        put(store, "a", None, run(1), run(2))
        with store.begin() as uow:
            uow.runs.clear("a")
            uow.runs.append("a", run(3))
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(3, 3)]

    def test_runs_are_removed_with_their_conversation(self, store: Store) -> None:
        """A conversation created under the id of a removed one has none of its runs, and its positions start at 1."""
        put(store, "a", None, run("old"), run("old"))
        do(store, lambda uow: uow.conversations.remove("a"))
        assert read_runs(store, "a") == []
        put(store, "a")
        assert read_runs(store, "a") == []
        do(store, lambda uow: uow.runs.append("a", run("new")))
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "new")]

    def test_windows_are_slices_of_all_runs(self, store: Store) -> None:
        """`first`, `last`, `list` and `get` return slices of all runs, also with gaps and with bounds beyond the ends."""
        put(store, "a", None, *(run(n) for n in range(1, 8)))
        do(store, lambda uow: uow.runs.remove("a", 2, 6))
        uow = store.begin()
        stored = uow.runs.list("a")
        assert [one.position for one in stored] == [1, 3, 4, 5, 7]
        for n in (0, 1, 2, 4, 5, 6, HUGE):
            assert uow.runs.first("a", n) == stored[:n]
            assert uow.runs.last("a", n) == stored[max(0, 5 - n) :]
        for after, before, limit in product((0, 1, 2, 7, HUGE), (None, 1, 3, 6, HUGE), (None, 0, 2, HUGE)):
            end = HUGE if before is None else before
            within = [one for one in stored if after < (one.position or 0) < end]
            assert uow.runs.list("a", after=after, before=before, limit=limit) == within[:limit]
        assert [uow.runs.get("a", one.position or 0) for one in stored] == stored

    def test_missing_run(self, store: Store) -> None:
        """Getting a run at an empty position raises NotFoundError; a missing conversation has no runs."""
        put(store, "a", None, run(), run())
        do(store, lambda uow: uow.runs.remove("a", 1))
        uow = store.begin()
        for conversation_id, position in (("a", 1), ("a", 3), ("a", 2**53 - 1), ("missing", 1)):
            with pytest.raises(NotFoundError):
                uow.runs.get(conversation_id, position)
        assert (uow.runs.list("missing"), uow.runs.last("missing", 3), uow.runs.first("missing", 3)) == ([], [], [])

    def test_iterate_yields_all_runs(self, store: Store) -> None:
        """`iterate` yields every run once, in order, over several pages; pending runs come last."""
        put(store, "a", None, *(run(n) for n in range(450)))
        uow = store.begin()
        uow.runs.append("a", run(450))
        assert [one.input for one in uow.runs.iterate("a")] == list(range(451))


class Pages(Contract):
    """Conversations are read in order, page by page."""

    def test_every_order_in_both_directions(self, store: Store, clock: Clock) -> None:
        """Pages of any size return all conversations in the requested order, for every field and direction."""
        for at in (0, 2, 1, 3):
            put(store, f"c{at}")
            clock.advance()
        for at in (3, 0):
            with store.begin() as uow:
                uow.runs.append(f"c{at}", run())
            clock.advance()
        assert [one.id for one in walk(store, order="created_at")] == ["c0", "c2", "c1", "c3"]
        assert [one.id for one in walk(store, order="updated_at")] == ["c2", "c1", "c3", "c0"]
        _check_orders(store)

    def test_equal_timestamps_are_paged_by_id(self, store: Store, clock: Clock) -> None:
        """Conversations with the same timestamp are ordered by id, and each is returned once for every page size."""
        put_all(store, {conversation_id: {} for conversation_id in IDS})
        clock.advance()
        put(store, "newer")
        assert [one.id for one in walk(store, order="created_at", limit=2)] == [*sorted(IDS), "newer"]
        _check_orders(store)

    def test_iterate_yields_all_conversations(self, store: Store) -> None:
        """`iterate` yields every conversation once, in order, over several pages."""
        ids = [f"{n:03}" for n in range(450)]
        put_all(store, {conversation_id: {} for conversation_id in ids})
        uow = store.begin()
        assert [one.id for one in uow.conversations.iterate(order="id")] == ids
        assert [one.id for one in uow.conversations.iterate(where.id >= "400", order="-id")] == ids[:399:-1]

    def test_iterate_under_concurrent_writes(self, store: Store) -> None:
        """`iterate` ends, and yields each conversation once, even if conversations are written at the same time."""
        ids = [f"{n:03}" for n in range(210)]  # more than a page of iterate
        put_all(store, {conversation_id: {} for conversation_id in ids})
        for order in ("", "created_at", "updated_at", "-updated_at"):
            unread = ids[0] if order == "-updated_at" else ids[-1]
            reached: list[str] = []
            with store.begin() as uow:
                for one in uow.conversations.iterate(order=order) if order else uow.conversations.iterate():
                    if len(reached) == 1:
                        do(store, lambda other: other.runs.append(unread, run()))  # noqa: B023  # called at once
                    if len(reached) % 50 == 0:
                        uow.runs.append(one.id, run())
                        uow.commit()
                    reached.append(one.id)
            assert sorted(reached) == ids, order

    def test_cursor_is_stable_under_additions_and_removals(self, store: Store) -> None:
        """Additions and removals before a cursor, even of its own conversation, make later pages skip or repeat nothing."""
        for order, behind, ahead in (("id", "d0", "d3x"), ("-id", "d7", "d3x")):
            other = sibling(store)
            for n in range(1, 7):
                put(other, f"d{n}")
            expected = [f"d{n}" for n in range(1, 7)]
            if order == "-id":
                expected.reverse()
            page = other.begin().conversations.find(order=order, limit=3)
            assert [one.id for one in page] == expected[:3]
            for removed in (expected[1], expected[2], expected[4]):
                do(other, lambda uow: uow.conversations.remove(removed))  # noqa: B023  # called at once
            put_all(other, {behind: {}, ahead: {}})
            rest = other.begin().conversations.find(order=order, limit=10, after=page.cursor)
            left = [*expected[3:4], *expected[5:], ahead]
            assert [one.id for one in rest] == sorted(left, reverse=order == "-id")
            assert rest.cursor is None

    def test_the_last_page_has_no_cursor(self, store: Store) -> None:
        """A page has a cursor if and only if more conversations follow, even if the page is exactly full."""
        for n in range(4):
            put(store, f"c{n}", {"n": n})
        conversations = store.begin().conversations
        for limit, more in ((1, True), (3, True), (4, False), (5, False), (HUGE, False)):
            assert (conversations.find(limit=limit).cursor is not None) == more
        assert conversations.find(where("n") >= 2, limit=2).cursor is None
        assert (conversations.find(where("n") > 9).items, conversations.find(where("n") > 9).cursor) == ((), None)


class Namespaces(Contract):
    """Namespaces are isolated from each other."""

    def test_no_operation_affects_another_namespace(self, store: Store, clock: Clock) -> None:
        """Reading, finding, counting, editing, removing and purging in one namespace do not affect any other."""
        mine, other, third = sibling(store), sibling(store), sibling(store)
        soon = to_datetime(clock.time + 1)
        for each in (mine, other):
            put(each, "a", {"n": 1}, Run("a", "", created_at=soon), Run("b", "", created_at=soon))
            put(each, "b", {"n": 2}, Run("b", "", created_at=soon))
        with mine.begin() as uow:
            uow.conversations.get("b").expires_at = soon
        do(third, lambda uow: uow.conversations.add(Conversation("b", expires_at=soon)))
        with unchanged(other):
            with mine.begin() as uow:
                uow.conversations.get("a").metadata = {"n": 2}
                uow.runs.append("a", run())
                uow.runs.remove("a", 1)
                uow.runs.replace("a", replace(run("new"), position=2))
            put(mine, "c", {"n": 2})
            clock.advance()
            assert [one.id for one in walk(mine, where("n") == 2)] == ["a", "c"]
            assert mine.begin().conversations.count() == 2
            do(mine, lambda uow: uow.runs.clear("a"))
            do(mine, lambda uow: uow.conversations.remove("c"))
            assert (mine.purge_expired(), mine.purge_expired(), third.purge_expired()) == (1, 0, 1)
            do(mine, lambda uow: uow.conversations.remove("a"))
        assert snapshot(mine) == ((), {})
        assert [one.id for one in walk(other, where("n") == 2)] == ["b"]
        assert other.begin().conversations.count() == 2

    def test_namespace_and_id_never_collide(self, store: Store) -> None:
        """Two pairs of namespace and id never collide, even if they are equal when joined."""
        base = new_id()
        pairs = [(base + joint, "b" + joint + "c") for joint in (":", "/", "#", ".", "|", "%", " ")]
        pairs += [(base + joint + "b", "c") for joint in (":", "/", "#", ".", "|", "%", " ")]
        pairs += [(base, joint + "b" + joint + "c") for joint in (":", "/", "#", ".", "|", "%", " ")]
        for namespace, conversation_id in pairs:
            put(store.namespace(namespace), conversation_id, {"at": namespace}, run(namespace))
        for namespace, conversation_id in pairs:
            other = store.namespace(namespace)
            expected = sorted(id_ for name, id_ in pairs if name == namespace)
            assert [(one.id, one.metadata) for one in walk(other)] == [(id_, {"at": namespace}) for id_ in expected]
            assert [one.input for one in read_runs(other, conversation_id)] == [namespace]
            assert other.begin().conversations.count() == len(expected)

    def test_namespaces_are_listed(self, store: Store, clock: Clock) -> None:
        """Every namespace with a conversation is listed once, by its exact name; those whose last one was removed are not."""
        base = new_id()
        names = sorted(base + end for end in ("", " ", "%", "/x", "A", "a", "😀" * 223))
        before = store.namespaces()
        for name in names:
            for id_ in ("a", "b"):
                put(store.namespace(name), id_, None, run())
        listed = store.namespaces()
        assert listed == sorted({*listed, *names})
        assert [name for name in listed if name not in before] == names
        do(store.namespace(base), lambda uow: uow.conversations.remove("a"))
        do(store.namespace(names[-1]), lambda uow: uow.conversations.remove("a"))
        with store.namespace(names[-1]).begin() as uow:
            uow.conversations.get("b").expires_at = to_datetime(clock.time + 1)
        clock.advance()
        store.namespace(names[-1]).purge_expired()
        assert [name for name in store.namespaces() if name in names] == names[:-1]


def _check_orders(store: Store) -> None:
    """Assert that find returns the right order for every field, direction and page size."""
    everything = list(store.begin().conversations.find(order="id", limit=100).items)
    for order, descending, limit in product(ORDERS, (False, True), range(1, len(everything) + 2)):
        expected = sorted(everything, key=lambda one: (getattr(one, order), one.id), reverse=descending)
        found = walk(store, order=f"-{order}" if descending else order, limit=limit)
        assert states(found) == states(expected), f"in the order {order}, descending={descending}, pages of {limit}"
