"""Round trips: values are read as they were written: equal, of the same type, and as copies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st

from memory.adapters.in_memory import InMemoryRepository
from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.domain.values import MAX_DEPTH, Json, key_of, new_id
from memory.testing import strategies
from memory.testing.base import Contract, do, put, read, read_runs, run, run_states, snapshot, text_of
from memory.transfer import batching, copy_conversation

ODD_IDS = (
    *(" ", "a", "A", "a ", "'; drop table conversations; --", '"quoted"', "100%_[x]", "a/b\\c:d#e?f&g=h"),
    *("{hash}:*", "..", "😀", "\u00e9", "e\u0301", "\uffff", "\u202eright to left", "x" * 255, "😀" * 255),
    *("x" * 2048, "x" * 2047 + "y", "x" * 256, "😀" * 2048),
)
TOKYO = timezone(timedelta(hours=9))


class RoundTrips(Contract):
    """Round trips of values, ids and timestamps."""

    def test_metadata_round_trip(self, store: Store) -> None:
        """Metadata of any JSON is read equal, with the same types throughout and its keys in the same order."""

        def comes_back(metadata: dict[str, Json]) -> None:
            put(store, conversation_id := new_id(), metadata)
            assert text_of(read(store, conversation_id).metadata) == text_of(metadata)

        self.for_all(strategies.metadata, comes_back)

    def test_run_round_trip(self, store: Store) -> None:
        """A run's input, output and metadata of any JSON are read equal, with the same types throughout."""
        put(store, "a")

        def comes_back(content: tuple[Json, Json, dict[str, Json]]) -> None:
            given = Run(*content)
            do(store, lambda uow: uow.runs.append("a", given))
            stored = store.begin().runs.last("a", 1)
            assert run_states(stored) == (given.to_record(read(store, "a").last_position),)

        self.for_all(st.tuples(strategies.values, strategies.values, strategies.metadata), comes_back)

    def test_unusual_values_round_trip(self, store: Store) -> None:
        """Empty, huge and tiny values, NUL, lone surrogates and quotes survive, alone, in a list, as a key and as a value."""
        odd: list[Json] = [*strategies.CONSTANTS, *strategies.ODD_NUMBERS, *strategies.ODD_STRINGS]
        odd += [[], {}, [[]], [{}]]
        runs = [Run(value, [value], {"value": value}) for value in odd]
        metadata: dict[str, Json] = {text: text for text in strategies.ODD_STRINGS}
        put(store, "a", metadata, *runs)
        expected = [replace(run, position=n) for n, run in enumerate(runs, 1)]
        assert run_states(read_runs(store, "a")) == run_states(expected)
        assert text_of(read(store, "a").metadata) == text_of(metadata)

    def test_largest_values_round_trip(self, store: Store) -> None:
        """A value of the maximum depth, a string of 100,000 characters and a key of that length survive."""
        deep: Json = []
        for _ in range(MAX_DEPTH - 2):
            deep = [deep]
        long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(100_000))
        metadata: dict[str, Json] = {"deep": deep, "long": long, long: {long: [long, long[1:]]}}
        put(store, "a", metadata, run(metadata))
        assert text_of(read(store, "a").metadata) == text_of(metadata)
        assert text_of(read_runs(store, "a")[0].input) == text_of(metadata)

    def test_similar_ids_are_distinct(self, store: Store) -> None:
        """Ids that differ in case, blanks, Unicode composition or quotes are different; so are such namespaces."""
        namespaces = [store.namespace(f"{new_id()}{end}"[:255]) for end in ("", " ", "%", "/x", "😀" * 223)]
        for at, other in enumerate(namespaces):
            for conversation_id in ODD_IDS:
                metadata: dict[str, Json] = {"id": conversation_id, "at": at}
                put(other, conversation_id, metadata, Run(conversation_id, at, id=conversation_id[:255]))
        for at, other in enumerate(namespaces):
            uow = other.begin()
            found = uow.conversations.find(order="id", limit=100).items
            expected = [(id_, {"id": id_, "at": at}) for id_ in sorted(ODD_IDS, key=key_of)]
            assert [(one.id, one.metadata) for one in found] == expected
            runs = [(run.id, run.input, run.output) for id_ in ODD_IDS for run in uow.runs.list(id_)]
            assert runs == [(id_[:255], id_, at) for id_ in ODD_IDS]

    def test_timestamps_round_trip(self, store: Store) -> None:
        """A run's timestamp and an expiry are read equal, in UTC, with microseconds, also far from today."""
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

    def test_returned_values_are_copies(self, store: Store) -> None:
        """Mutating a returned value does not change what is stored."""
        put(store, "a", {"list": ["a"]}, run(["a"]))
        for conversation in (read(store, "a"), *store.begin().conversations.find()):
            conversation.metadata["list"] = "changed"
        returned = read_runs(store, "a")[0].input
        assert isinstance(returned, list)
        returned.append("changed")
        assert read(store, "a").metadata == {"list": ["a"]}
        assert [run.input for run in read_runs(store, "a")] == [["a"]]

    def test_conversation_copied_in_several_commits(self, store: Store) -> None:
        """Positions and timestamps assigned by another store are kept, also when a copy takes several commits."""
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
