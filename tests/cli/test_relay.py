import json
import signal
import subprocess
from pathlib import Path

import pytest

import memory
from memory.testing.base import put, run
from memory.transfer.mirroring import MirroredStore
from memory.transfer.verifying import verify
from tests.cli.conftest import Cli, start

PRIMARY, COPIES, ELSEWHERE = "sqlite:///conversations.db", "sqlite:///copies.db", "sqlite:///nowhere/copies.db"
SEARCH = f"search={COPIES}"


@pytest.fixture
def store() -> MirroredStore:
    store = memory.mirror(PRIMARY, search=COPIES)
    put(store, "ada", None, run())
    put(store, "bob")
    return store


def test_relay_delivers_what_waits_and_stats_tell_what_does(cli: Cli, store: MirroredStore) -> None:
    facts = json.loads(cli("stats", "--json").out)
    assert facts["waiting for search"] == 2
    assert facts["oldest for search"].startswith("20")
    assert cli("relay", SEARCH).out == "search: delivered 2 change sets\n"
    assert cli("relay", SEARCH).out == "search: delivered 0 change sets\n"
    assert "waiting" not in cli("stats").out
    assert cli("count", "--store", COPIES).out == "2\n"
    store.close()


def test_relay_tells_what_it_could_not_deliver(cli: Cli, store: MirroredStore) -> None:
    ended = cli("relay", f"archive={ELSEWHERE}")
    assert ended.code == 1
    assert ended.err == "search: 2 change sets left, which is not named here: name it, or see --forget\n"
    with memory.mirror(PRIMARY, archive=ELSEWHERE, search=COPIES) as both:
        put(both, "cyd")
    ended = cli("relay", f"archive={ELSEWHERE}", SEARCH)
    assert ended.code == 1
    assert ended.out.splitlines()[1:] == ["search: delivered 3 change sets"]
    failure, left = ended.err.splitlines()
    assert failure.startswith("error: archive: ")
    assert left == "archive: 1 change set left"
    store.close()


def test_what_waits_for_a_former_replica_is_discarded_on_demand(cli: Cli, store: MirroredStore) -> None:
    with memory.mirror(PRIMARY, archive=ELSEWHERE) as other:
        put(other, "cyd")
    assert cli("relay", SEARCH).code == 1
    in_use = cli("relay", SEARCH, "--forget", "search")
    assert (in_use.code, "is a replica of this store" in in_use.err) == (1, True)
    assert cli("relay", "--forget", "archive").out == "discarded 1 change set\n"
    assert cli("relay", SEARCH).code == 0
    store.close()


def test_what_waits_under_a_former_name_is_delivered_by_that_name(cli: Cli, store: MirroredStore) -> None:
    with memory.mirror(PRIMARY, copies=COPIES) as renamed:
        put(renamed, "cyd")
    assert cli("relay", SEARCH).out == "search: delivered 2 change sets\n"
    assert cli("relay", f"copies={COPIES}").out == "copies: delivered 1 change set\n"
    assert cli("count", "--store", COPIES).out == "3\n"
    store.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the replicas, such as search=redis://host"),
        ([COPIES], "write a replica as NAME=URL"),
        (["redis://host?prefix=search"], "write a replica as NAME=URL"),
        ([f"={COPIES}"], "write a replica as NAME=URL"),
        ([SEARCH, SEARCH], "the replica 'search' is named twice"),
        ([SEARCH, f"copies={COPIES}"], "the replica 'search' and the replica 'copies' are the same store"),
        ([f"search={PRIMARY}"], "the primary and the replica 'search' are the same store"),
    ],
)
def test_replicas_are_named(cli: Cli, store: MirroredStore, arguments: list[str], message: str) -> None:
    ended = cli("relay", *arguments)
    assert ended.code == 1
    assert message in ended.err
    store.close()


def test_relay_needs_a_store_that_is_there(cli: Cli) -> None:
    assert "there is no file" in cli("relay", SEARCH).err
    assert not Path("conversations.db").exists()


def test_following_goes_on_until_it_is_ended(store: MirroredStore, tmp_path: Path) -> None:
    relay = start("relay", SEARCH, "--follow", "--interval", "0.01", cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert relay.stdout is not None
    delivered = 0
    for expected in (2, 3):
        while delivered < expected:
            told = relay.stdout.readline().decode().removeprefix("search: delivered ")
            delivered += int(told.split()[0])
        put(store, f"more {expected}", None, run())
    relay.send_signal(signal.SIGINT)
    relay.communicate()
    assert relay.returncode == 130
    store.relay()
    with memory.connect(COPIES) as copies:
        assert list(verify(store, copies)) == []
    store.close()
