from collections.abc import Callable

import pytest

from memory import (
    Store,
)
from memory.testing.base import do, put, run
from memory.transfer import copy, copy_conversation
from memory.transfer.verifying import Compared, verify
from tests.copying import edited, interfering, objects, tamper

PLANTED: dict[str, Callable[[Store], None]] = {
    "metadata": lambda store: tamper(store, lambda record: record._replace(metadata='{"n":1.0}')),
    "version: 1, there 2": lambda store: tamper(store, lambda record: record._replace(version=2)),
    "created_at: ": lambda store: tamper(store, lambda record: record._replace(created_at=record.created_at + 1)),
    "updated_at: ": lambda store: tamper(store, lambda record: record._replace(updated_at=record.updated_at - 1)),
    "expires_at: None, there 2096-10-02T07:06:40.000000Z": lambda store: tamper(
        store, lambda record: record._replace(expires_at=4 * 10**15)
    ),
    "last_position: 900, there 901": lambda store: tamper(store, lambda record: record._replace(last_position=901)),
    "run_count: 900, there 899; runs: at 7": lambda store: tamper(store, runs=lambda runs: (*runs[:6], *runs[7:])),
    "runs: at 1": lambda store: tamper(store, runs=lambda runs: (runs[0]._replace(output='"1"'), *runs[1:])),
    "runs: at 450": lambda store: tamper(
        store, runs=lambda runs: (*runs[:449], runs[449]._replace(metadata='{"a":0}'), *runs[450:])
    ),
    "runs: at 1, 2, 3, 4, 5 and 895 more": lambda store: tamper(
        store, runs=lambda runs: tuple([one._replace(created_at=one.created_at + 1) for one in runs])
    ),
    "runs: at 900": lambda store: tamper(store, runs=lambda runs: (*runs[:-1], runs[-1]._replace(id="other"))),
    "missing there": lambda store: do(store, lambda uow: uow.conversations.remove("a")),
}


@pytest.mark.parametrize("expected", PLANTED)
def test_every_difference_is_found(expected: str) -> None:
    source, target = objects(), objects()
    put(source, "a", {"n": 1}, *[run(n) for n in range(900)])
    for conversation_id in "bc":
        put(source, conversation_id)
    copy(source, target)
    PLANTED[expected](target)
    compared = Compared()
    (difference,) = verify(source, target, compared=compared)
    assert difference.id == "a"
    assert str(difference).startswith(f"a: {expected}")
    assert compared.differing == 1
    assert compared.source.digest != compared.target.digest
    assert (compared.source.conversations, compared.source.runs) == (3, 900)
    (backwards,) = verify(target, source)
    assert backwards.id == "a"


def test_what_is_written_while_it_is_compared_is_no_difference_once_it_is_written_on_both_sides() -> None:
    source, target = objects(), objects()
    for conversation_id in "ab":
        put(source, conversation_id, None, run(1))
    copy(source, target)

    def write(number: int) -> None:
        if number == 3:
            edited(1, source, "b")
            copy_conversation(source, target, "b")

    with interfering(source, write):
        assert list(verify(source, target)) == []
