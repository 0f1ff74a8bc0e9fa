"""What must hold of the tables at any moment, whoever was killed."""

from collections import Counter

from sqlalchemy import Engine, func, select

from memory.adapters.sql.tables import conversations, counts, entries, runs
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.port.index import entries as entries_of


def assert_consistent(engine: Engine) -> None:
    """Check counts, positions and index of every conversation, and that no row belongs to none."""
    with engine.connect() as connection:
        kept = connection.execute(select(conversations)).mappings().all()
        counted = {
            key: (count, last)
            for key, count, last in connection.execute(
                select(runs.c.conversation_key, func.count(), func.max(runs.c.position)).group_by(
                    runs.c.conversation_key
                )
            )
        }
        indexed = Counter(
            tuple(row)
            for row in connection.execute(
                select(entries.c.conversation_key, entries.c.namespace, entries.c.path, entries.c.value)
            )
        )
        told = connection.execute(
            select(counts.c.namespace, func.sum(counts.c.conversations)).group_by(counts.c.namespace)
        ).all()
    there = Counter(row["namespace"] for row in kept)
    assert {namespace: count for namespace, count in told if count} == there
    expected = Counter[tuple[object, ...]]()
    for row in kept:
        values = {name: row["key"] if name == "incarnation" else row[name] for name in ConversationRecord._fields}
        conversation = Conversation.from_record(ConversationRecord(**values))
        count, last = counted.pop(row["key"], (0, 0))
        assert row["run_count"] == count, f"{conversation} has {count} runs"
        assert row["last_position"] >= last, f"{conversation} has a run at {last}"
        expected.update((row["key"], row["namespace"], *entry) for entry in entries_of(conversation.metadata))
    assert not counted, f"runs of no conversation: {counted}"
    assert indexed == expected
