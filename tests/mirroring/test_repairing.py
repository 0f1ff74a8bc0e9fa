"""A replica that is not in the state that a parcel was made for, and a relay that is not alone any more."""

from pathlib import Path

import pytest

import memory
from memory import Conversation
from memory.adapters.sql import SqlRepository
from memory.testing.base import do, put, run
from memory.transfer import copy
from memory.transfer.mirroring import mirror
from memory.transfer.verifying import verify


def test_a_relay_that_lost_its_hold_takes_nothing_away_that_another_has_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at the primary, and before it goes on a commit comes there, and by the other relay to the replica."""
    replica = memory.connect("memory://")
    with memory.connect(f"sqlite:///{tmp_path}/primary.db") as primary:
        store = mirror(primary, search=replica)
        put(store, "a", None, run("1"))
        copy(primary, replica)  # the other relay has been here; this one does not know, and has the parcel still
        get, looks = SqlRepository.get, iter(range(10))

        def get_and_be_overtaken(self: SqlRepository, namespace: str, conversation_id: str) -> Conversation | None:
            found = get(self, namespace, conversation_id)
            if next(looks) == 0:
                for each in (primary, replica):
                    do(each, lambda uow: uow.runs.append("a", run("2")))
            return found

        monkeypatch.setattr(SqlRepository, "get", get_and_be_overtaken)
        assert [(done.delivered, done.failure) for done in store.relay()] == [(1, None)]
        assert next(looks) > 0
        assert [one.input for one in replica.begin().runs.list("a")] == ["1", "2"]


def test_a_new_file_is_made_a_replica_by_whichever_parcel_comes_first(tmp_path: Path) -> None:
    with memory.connect(f"sqlite:///{tmp_path}/primary.db") as primary:
        put(primary, "a", {"n": 0}, run("1"))
        with mirror(primary, copies=f"sqlite:///{tmp_path}/replica.db") as store:
            do(store, lambda uow: uow.conversations.get("a").metadata.update(n=1))
            assert [(done.delivered, done.repaired) for done in store.relay()] == [(1, 1)]
            assert isinstance(store.replicas["copies"].repository, SqlRepository)
            assert list(verify(primary, store.replicas["copies"])) == []
