"""Reading several conversations at once, getting or creating one, etags, and commits with an idempotency key."""

from datetime import timedelta

import pytest

from memory.core.events import (
    ConversationAdded,
    ConversationRemoved,
    Event,
    MetadataChanged,
    RunCompleted,
    RunsAppended,
    RunsRemoved,
    RunsReplaced,
)
from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import PENDING, Conversation, Run
from memory.domain.values import to_datetime
from memory.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError, State
from memory.testing.base import (
    Clock,
    Contract,
    Work,
    do,
    put,
    put_all,
    read,
    read_runs,
    requires,
    run,
    sibling,
    unchanged,
    walk,
)


class Conveniences(Contract):
    """What applications would else write themselves."""

    def test_many_conversations_at_once(self, store: Store) -> None:
        """`get_many` returns those that exist, by id, and a unit of work commits changes of them."""
        put_all(store, {name: {"n": 1} for name in "abc"})
        found = store.conversations.get_many(["c", "missing", "a", "a"])
        assert [(id, one.id) for id, one in found.items()] == [("c", "c"), ("a", "a")]
        assert store.conversations.get_many([]) == {}
        with store.begin() as uow:
            first = uow.conversations.get("a")
            many = uow.conversations.get_many(["a", "missing"])
            assert many["a"] is first
            many["a"].metadata["n"] = 2
        assert read(store, "a").metadata == {"n": 2}

    def test_last_runs_of_many(self, store: Store) -> None:
        """`last_of` returns the last runs of each conversation, oldest first, with pending changes."""
        for name, count in (("a", 3), ("b", 1), ("empty", 0)):
            put(store, name, None, *[run(f"{name}{n}") for n in range(count)])
        page = store.conversations.find(order="id")
        texts = {id: [one.input for one in runs] for id, runs in store.runs.last_of([*page, "missing"], 2).items()}
        assert texts == {"a": ["a1", "a2"], "b": ["b0"], "empty": [], "missing": []}
        assert store.runs.last_of([], 2) == {}
        uow = store.begin()
        uow.runs.append("b", run("new"))
        uow.runs.remove("a", 3)
        texts = {id: [one.input for one in runs] for id, runs in uow.runs.last_of(["a", "b"], 2).items()}
        assert texts == {"a": ["a0", "a1"], "b": ["b0", "new"]}

    def test_last_runs_are_expected(self, store: Store) -> None:
        """The version at which `last_of` read a conversation is expected by the commit."""
        put(store, "a", None, run())
        uow = store.begin()
        uow.runs.last_of(["a"], 1)
        do(store, lambda other: other.runs.replace("a", Run("in", "theirs", position=1)))
        uow.runs.remove("a", 1)
        with pytest.raises(ConflictError, match="'a'"):
            uow.commit()

    def test_runs_stand_for_their_positions(self, store: Store) -> None:
        """Where a position is taken, a run that has one is, too; one that is not committed is refused."""
        put(store, "a", None, *[run(f"a{n}") for n in range(1, 7)])
        _, second, third, _, fifth, _ = read_runs(store, "a")
        runs = store.runs
        assert runs.get("a", third) == third
        for before in (fifth, 5):
            assert [one.position for one in runs.last("a", 2, before=before)] == [3, 4]
        assert [one.position for one in runs.list("a", after=second, before=fifth)] == [3, 4]
        do(store, lambda uow: uow.runs.append("a", run("a7"), after=read_runs(store, "a")[-1]))
        do(store, lambda uow: uow.runs.remove("a", third, before=second, after=fifth))
        assert [one.position for one in read_runs(store, "a")] == [2, 4, 5]
        new = run()
        refused: tuple[Work, ...] = (
            lambda uow: uow.runs.append("a", run(), after=new),
            lambda uow: uow.runs.remove("a", new),
            lambda uow: uow.runs.remove("a", after=new),
            lambda uow: uow.runs.last("a", 1, before=new),
        )
        for work in refused:
            with pytest.raises(InvalidValueError, match="None"):
                do(store, work)
        with store.begin() as uow:
            uow.runs.append("a", new)
            assert uow.runs.last("a", 1, before=5)[0].position == 4  # pending runs come after every position

    def test_one_conversation(self, store: Store) -> None:
        """`find_one` returns the first match, or None."""
        put_all(store, {"a": {"n": 1}, "b": {"n": 1}})
        first = store.conversations.find_one(where("n") == 1, order="-id")
        assert first is not None
        assert first.id == "b"
        assert store.conversations.find_one(where("n") == 2) is None

    def test_get_or_create(self, store: Store) -> None:
        """`get_or_create` adds the conversation once; losing a race is a conflict, which `run` retries."""
        created = store.run(lambda uow: uow.conversations.get_or_create("a", {"n": 1}))
        assert (created.version, created.metadata) == (1, {"n": 1})
        with store.begin() as uow:
            assert uow.conversations.get_or_create("a", {"n": 2}).metadata == {"n": 1}
        uow = store.begin()
        uow.conversations.get_or_create("b")
        put(store, "b")
        with pytest.raises(ConflictError, match="'b'"):
            uow.commit()

    def test_removing_what_matches(self, store: Store) -> None:
        """`remove` takes a criterion, and removes all that match."""
        put_all(store, {"a": {"n": 1}, "b": {"n": 2}})
        do(store, lambda uow: uow.conversations.remove(where("n") == 1))
        assert [one.id for one in walk(store)] == ["b"]

    def test_positions_are_set_on_the_runs(self, store: Store) -> None:
        """After the commit, the runs that were appended have their positions, and the unit of work has the receipt."""
        put(store, "a", None, run())
        mine = [run(), run()]
        with store.begin() as uow:
            uow.runs.append("a", mine[0])
            uow.runs.append(uow.conversations.get("a"), mine[1])
        assert [one.position for one in mine] == [2, 3]
        assert uow.receipt is not None
        written = uow.receipt.written["a"]
        assert written is not None
        assert written.last_position == 3

    def test_pages_can_be_indexed_and_followed(self, store: Store) -> None:
        """A page knows whether there is another one, and returns it."""
        put_all(store, {name: {} for name in "abc"})
        page = store.conversations.find(order="id", limit=2)
        assert (page[0].id, page[-1].id, page.has_more) == ("a", "b", True)
        rest = page.next()
        assert ([one.id for one in rest], rest.has_more, len(rest.next())) == (["c"], False, 0)

    def test_etags_change_with_every_write(self, store: Store, clock: Clock) -> None:
        """Every write changes the etag, also a removal with another creation; `get` compares it."""
        writes: tuple[Work, ...] = (
            lambda uow: uow.runs.append("a", run(), Run("in", PENDING, id="open")),
            lambda uow: uow.runs.complete("a", "open", output="out"),
            lambda uow: uow.conversations.get("a").metadata.update(n=2),
            lambda uow: uow.runs.remove("a", 1),
            lambda uow: uow.conversations.remove("a"),
        )
        with store.begin() as uow:
            uow.conversations.add(conversation := Conversation("a", {"n": 1}))
            assert conversation.etag == ""
        etags = [conversation.etag]
        assert read(store, "a").etag == conversation.etag != ""
        with pytest.raises(ConflictError):
            store.conversations.get("a", if_match="")
        for write in writes:
            clock.advance()
            do(store, write)
            if "a" not in store.conversations:
                put(store, "a", {"n": 1})
            etags.append(read(store, "a").etag)
            assert store.conversations.get("a", if_match=etags[-1]).etag == etags[-1]
            with pytest.raises(ConflictError, match="'a'") as refusal:
                store.conversations.get("a", if_match=etags[-2])
            assert not refusal.value.retryable
        assert len(set(etags)) == len(etags)

    def test_errors_carry_what_they_are_about(self, store: Store) -> None:
        """Errors have the conversation's id; a conflict the expected and the actual state."""
        put(store, "a", {"n": 1}, run())
        with pytest.raises(NotFoundError) as missing, store.begin() as uow:
            uow.runs.append("missing", run())
        with pytest.raises(AlreadyExistsError) as exists:
            put(store, "a")
        uow = store.begin()
        uow.conversations.get("a").metadata["n"] = 2
        uow.runs.append("a", run(), after=1)
        do(store, lambda other: other.conversations.get("a").metadata.update(n=3))
        with pytest.raises(ConflictError) as conflict:
            uow.commit()
        assert [one.value.conversation_id for one in (missing, exists, conflict)] == ["missing", "a", "a"]
        assert (conflict.value.expected, conflict.value.actual) == (State(1, 1), State(2, 1))

    def test_time_of_the_last_run(self, store: Store, clock: Clock) -> None:
        """`last_run_at` is the latest time of a run; edits leave it alone, and `find` orders by it."""
        start = to_datetime(clock.time)
        for n, name in enumerate("abc"):
            put(store, name, {"n": n}, Run("in", "out", created_at=start + timedelta(seconds=n)))
        clock.advance()
        assert read(sibling(store).namespace(store.namespace_name), "a").last_run_at == start
        do(store, lambda uow: uow.runs.append("a", Run("in", "out", created_at=start + timedelta(seconds=9))))
        do(store, lambda uow: uow.runs.append("b", Run("in", "out", created_at=start - timedelta(seconds=9))))
        with store.begin() as uow:
            uow.conversations.get("c").metadata["pinned"] = True
            edited = uow.conversations.get("c")
        assert edited.last_run_at == read(store, "c").last_run_at == start + timedelta(seconds=2)
        assert [one.id for one in store.conversations.find()] == ["a", "c", "b"]
        assert [one.id for one in walk(store, order="last_run_at", limit=1)] == ["b", "c", "a"]
        found = store.conversations.find(where.last_run_at > start + timedelta(seconds=1), order="id")
        assert [one.id for one in found] == ["a", "c"]

    def test_created_at_can_be_given(self, store: Store, clock: Clock) -> None:
        """A conversation from elsewhere keeps the time at which it was created."""
        long_ago = to_datetime(clock.time) - timedelta(days=400)
        with store.begin() as uow:
            uow.conversations.add(mine := Conversation("a", created_at=long_ago))
            uow.conversations.add(Conversation("b")) if store.repository.capabilities.many_conversations else None
        stored = read(store, "a")
        assert (mine.created_at, stored.created_at, stored.last_run_at) == (long_ago, long_ago, long_ago)
        assert stored.updated_at == to_datetime(clock.time)

    def test_events_say_what_was_done(self, store: Store) -> None:
        """A subscriber gets domain events, with decoded values and positions."""
        events: list[Event] = []
        store.subscribe(lambda committed: events.extend(committed.events))
        works: tuple[Work, ...] = (
            lambda uow: uow.conversations.add(Conversation("a", {"n": 1})),
            lambda uow: uow.runs.append("a", run(1), Run(2, PENDING, id="open")),
            lambda uow: uow.runs.complete("a", "open", output={"k": "v"}),
            lambda uow: uow.conversations.get("a").metadata.update(n=2),
            lambda uow: uow.runs.replace("a", Run("new", "out", position=1)),
            lambda uow: uow.runs.remove("a", 2),
            lambda uow: uow.conversations.remove("a"),
        )
        for work in works:
            do(store, work)
        added, appended, completed, changed, replaced, removed, gone = events
        assert isinstance(added, ConversationAdded)
        assert (added.namespace, added.conversation_id, added.metadata) == (store.namespace_name, "a", {"n": 1})
        assert isinstance(appended, RunsAppended)
        assert [(one.position, one.input, one.is_open) for one in appended.runs] == [(1, 1, False), (2, 2, True)]
        assert isinstance(completed, RunCompleted)
        assert (completed.run_id, completed.output, completed.is_open) == ("open", {"k": "v"}, False)
        assert isinstance(changed, MetadataChanged)
        assert changed.metadata == {"n": 2}
        assert isinstance(replaced, RunsReplaced)
        assert [(one.position, one.input) for one in replaced.runs] == [(1, "new")]
        assert isinstance(removed, RunsRemoved)
        assert removed.positions == (2,)
        assert isinstance(gone, ConversationRemoved)


class IdempotencyKeys(Contract):
    """Commits with a key of the application's."""

    @requires("idempotency_keys")
    def test_second_commit_writes_nothing(self, store: Store, clock: Clock) -> None:
        """A second commit with a key writes nothing and has the first receipt, also 29 days later and if it would fail."""
        put(store, "a")
        with store.begin(idempotency_key="message-7") as first:
            first.runs.append("a", run(1))
        clock.advance(29 * 24 * 3600 * 1_000_000)
        works: tuple[Work, ...] = (
            lambda uow: uow.runs.append("a", run(1)),
            lambda uow: uow.conversations.add(Conversation("b")),
            lambda uow: uow.runs.append("a", run(), after=9),
        )
        published: list[object] = []
        store.subscribe(published.append)
        for work in works:
            with unchanged(store), store.begin(idempotency_key="message-7") as again:
                work(again)
            assert again.receipt == first.receipt
            assert again.receipt is not None
            assert again.receipt.repeated
            assert again.receipt.last_position("a") == 1
            with pytest.raises(NotFoundError, match="'b'"):
                again.receipt.last_position("b")
        assert published == []
        assert [one.input for one in read_runs(store, "a")] == [1]

    @requires("idempotency_keys")
    def test_keys_are_scoped(self, store: Store) -> None:
        """Another key, and the same key in another namespace, are other commits."""
        for other in (store, sibling(store)):
            put(other, "a")
            for key in ("1", "2", "1"):
                with other.begin(idempotency_key=key) as uow:
                    uow.runs.append("a", run(key))
            assert [one.input for one in read_runs(other, "a")] == ["1", "2"]

    @requires("idempotency_keys")
    def test_failed_commit_does_not_use_up_the_key(self, store: Store) -> None:
        """After a commit that was refused, the key can be used again."""
        with pytest.raises(NotFoundError), store.begin(idempotency_key="1") as uow:
            uow.runs.append("a", run())
        put(store, "a")
        with store.begin(idempotency_key="1") as uow:
            uow.runs.append("a", run())
        assert read(store, "a").run_count == 1
