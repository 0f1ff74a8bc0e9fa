"""What goes in comes out: equal, of the same type, and a copy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st

from memory.adapters.in_memory import InMemoryRepository
from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.domain.values import MAX_DEPTH, Json, new_id
from memory.errors import InvalidValueError
from memory.testing import strategies
from memory.testing.base import Contract, beside, put, read, read_runs, run, run_states, snapshot, text_of
from memory.transfer import batching, copy_conversation

ODD_IDS = (
    " ",
    "a",
    "A",
    "a ",
    "'; drop table conversations; --",
    '"quoted"',
    "100%_[x]",
    "a/b\\c:d#e?f&g=h",
    "{hash}:*",
    "..",
    "😀",
    "\u00e9",
    "e\u0301",
    "\uffff",
    "\u202eright to left",
    "x" * 255,
    "😀" * 255,
)
TOKYO = timezone(timedelta(hours=9))


class RoundTrips(Contract):
    """Values, ids and times."""

    def test_any_metadata_comes_back_exactly(self, store: Store) -> None:
        """Metadata of any JSON comes back equal and of the same type throughout, its keys in their order."""

        def comes_back(metadata: dict[str, Json]) -> None:
            put(store, conversation_id := new_id(), metadata)
            assert text_of(read(store, conversation_id).metadata) == text_of(metadata)

        self.for_all(strategies.metadata, comes_back)

    def test_any_run_comes_back_exactly(self, store: Store) -> None:
        """A run's input, output and metadata of any JSON come back equal and of the same type throughout."""
        put(store, "a")

        def comes_back(content: tuple[Json, Json, dict[str, Json]]) -> None:
            given = Run(*content)
            with store.begin() as uow:
                uow.runs.append("a", given)
            stored = store.begin().runs.last("a", 1)
            assert run_states(stored) == (given.to_record(read(store, "a").last_position),)

        self.for_all(st.tuples(strategies.values, strategies.values, strategies.metadata), comes_back)

    def test_odd_values_come_back(self, store: Store) -> None:
        """Empty, huge, tiny, NUL, lone surrogates, quotes: alone, in a list, as a key and as a value, they come back."""
        odd: tuple[Json, ...] = (
            *strategies.CONSTANTS,
            *strategies.ODD_NUMBERS,
            *strategies.ODD_STRINGS,
            [],
            {},
            [[]],
            [{}],
        )
        runs = [Run(value, [value], {"value": value}) for value in odd]
        metadata: dict[str, Json] = {text: text for text in strategies.ODD_STRINGS}
        put(store, "a", metadata, *runs)
        expected = [replace(run, position=n) for n, run in enumerate(runs, 1)]
        assert run_states(read_runs(store, "a")) == run_states(expected)
        assert text_of(read(store, "a").metadata) == text_of(metadata)

    def test_the_limits_of_values_come_back(self, store: Store) -> None:
        """A value nested as deep as allowed, a string of 100,000 characters and keys as long come back."""
        deep: Json = []
        for _ in range(MAX_DEPTH - 2):
            deep = [deep]
        long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(100_000))
        metadata: dict[str, Json] = {"deep": deep, "long": long, long: {long: [long, long[1:]]}}
        put(store, "a", metadata, run(metadata))
        assert text_of(read(store, "a").metadata) == text_of(metadata)
        assert text_of(read_runs(store, "a")[0].input) == text_of(metadata)

    def test_odd_ids_are_kept_apart(self, store: Store) -> None:
        """Ids that differ in case, blanks, composition or quotes are different conversations; so are namespaces."""
        namespaces = [store.namespace(f"{new_id()}{end}"[:255]) for end in ("", " ", "%", "/x", "😀" * 223)]
        for at, other in enumerate(namespaces):
            for conversation_id in ODD_IDS:
                metadata: dict[str, Json] = {"id": conversation_id, "at": at}
                put(other, conversation_id, metadata, Run(conversation_id, at, id=conversation_id))
        for at, other in enumerate(namespaces):
            uow = other.begin()
            found = uow.conversations.find(order="id", limit=100).items
            assert [(one.id, one.metadata) for one in found] == [
                (id_, {"id": id_, "at": at}) for id_ in sorted(ODD_IDS)
            ]
            runs = [(run.id, run.input, run.output) for id_ in ODD_IDS for run in uow.runs.list(id_)]
            assert runs == [(id_, id_, at) for id_ in ODD_IDS]

    def test_times_come_back_to_the_microsecond(self, store: Store) -> None:
        """A run's time and an expiry come back equal, in UTC, with their microseconds, far from today as well."""
        for moment in (
            datetime(2038, 1, 19, 3, 14, 8, 1, tzinfo=UTC),
            datetime(2100, 6, 1, 12, 0, 0, 999_999, tzinfo=TOKYO),
            datetime.max.replace(tzinfo=UTC),
        ):
            conversation = Conversation(expires_at=moment)
            runs = [Run("", "", created_at=moment), Run("", "", created_at=datetime.min.replace(tzinfo=UTC))]
            with store.begin() as uow:
                uow.conversations.add(conversation)
                uow.runs.append(conversation.id, *runs)
            stored = read(store, conversation.id)
            (found,) = store.begin().conversations.find(where.id == conversation.id).items
            for kept in stored, found:
                assert (kept.expires_at, kept.expires_at and kept.expires_at.tzinfo) == (moment, UTC)
            assert [run.created_at for run in read_runs(store, conversation.id)] == [run.created_at for run in runs]

    def test_what_was_given_is_copied(self, store: Store) -> None:
        """What the caller does to a value after giving it does not reach what is stored."""
        listed: list[Json] = ["a"]
        metadata: dict[str, Json] = {"list": listed}
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", metadata))
            uow.runs.append("a", run(listed, listed))
            listed.append("changed after append")
        metadata["b"] = "changed after the commit"
        assert [(run.input, run.output) for run in read_runs(store, "a")] == [(["a"], ["a"])]
        assert read(store, "a").metadata == {"list": ["a", "changed after append"]}

    def test_what_is_returned_is_a_copy(self, store: Store) -> None:
        """What the caller does to a value that was returned does not reach what is stored."""
        put(store, "a", {"list": ["a"]}, run(["a"]))
        for conversation in (read(store, "a"), *store.begin().conversations.find()):
            conversation.metadata["list"] = "changed"
        returned = read_runs(store, "a")[0].input
        assert isinstance(returned, list)
        returned.append("changed")
        assert read(store, "a").metadata == {"list": ["a"]}
        assert [run.input for run in read_runs(store, "a")] == [["a"]]

    def test_a_conversation_copied_in_pieces_is_the_same(self, store: Store) -> None:
        """What another store has assigned is kept, also where a copy is begun, gone on with, and ended by several commits."""
        origin = Store(InMemoryRepository())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batching, "MOST_RUNS", 2)
            for conversation_id, last in (("whole", 4), ("without its last", 9)):
                put(origin, conversation_id, {"n": 1}, *[run(n) for n in range(9)])
                with origin.begin() as uow:
                    uow.runs.remove(conversation_id, last)
                assert copy_conversation(origin, store, conversation_id).runs == 8
                assert copy_conversation(origin, store, conversation_id).outcome == "equal"
        assert snapshot(store) == snapshot(origin)

    def test_what_no_store_keeps_is_refused(self, store: Store) -> None:
        """What is not JSON is refused where it enters, with the path to it, and nothing of it is written."""
        put(store, "a")
        cycle: list[object] = []
        cycle.append(cycle)
        for odd in (float("nan"), float("inf"), b"", (1,), {1: 2}, {1}, datetime.now(UTC), 10**5000, cycle):
            metadata: dict[str, Json] = {"customer": ["", odd]}  # type: ignore[list-item]
            with store.begin() as uow, pytest.raises(InvalidValueError, match=r"metadata\.customer\[1\]"):
                uow.conversations.add(Conversation(metadata=metadata))
            with store.begin() as uow, pytest.raises(InvalidValueError, match=r"input\.customer\[1\]"):
                uow.runs.append("a", run(metadata))
            with pytest.raises(InvalidValueError, match=r"metadata\.customer\[1\]"), store.begin() as uow:
                uow.conversations.get("a").metadata.update(metadata)
        assert [(one.id, one.metadata, one.version) for one in store.begin().conversations.find()] == [("a", {}, 1)]
        assert read_runs(store, "a") == []

    def test_impossible_ids_are_refused(self, store: Store) -> None:
        """An empty or too long id, control characters and lone surrogates are refused before the store sees them."""
        for bad in ("", "x" * 256, "a\x00", "a\n", "\ud800"):
            with pytest.raises(InvalidValueError):
                Conversation(bad)
            with pytest.raises(InvalidValueError):
                read(store, bad)
            with pytest.raises(InvalidValueError):
                beside(store).namespace(bad)

    def test_moments_out_of_range_are_refused(self, store: Store) -> None:
        """A moment that UTC's years 1 to 9999 do not hold is refused: it could not be read again."""
        beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
        with store.begin() as uow:
            with pytest.raises(InvalidValueError):
                uow.conversations.add(Conversation("a", expires_at=beyond))
            uow.conversations.add(Conversation("b"))
            with pytest.raises(InvalidValueError):
                uow.runs.append("b", Run("", "", created_at=beyond))
            with pytest.raises(InvalidValueError):
                uow.runs.append("b", Run("", "", created_at=datetime.now()))  # noqa: DTZ005  # that is what is refused
        assert [one.id for one in store.begin().conversations.find()] == ["b"]
