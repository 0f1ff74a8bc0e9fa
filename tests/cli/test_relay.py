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
NAMES = {url: f"SqlRepository({url})" for url in (COPIES, ELSEWHERE)}


@pytest.fixture
def store() -> MirroredStore:
    store = memory.mirror(PRIMARY, COPIES)
    put(store, "ada", None, run())
    put(store, "bob")
    return store


def test_relay_delivers_what_waits_and_stats_tell_what_does(cli: Cli, store: MirroredStore) -> None:
    facts = json.loads(cli("stats", "--json").out)
    assert facts[f"waiting for {NAMES[COPIES]}"] == 2
    assert facts[f"oldest for {NAMES[COPIES]}"].startswith("20")
    assert cli("relay", COPIES).out == f"{NAMES[COPIES]}: delivered 2 change sets\n"
    assert cli("relay", COPIES).out == f"{NAMES[COPIES]}: delivered 0 change sets\n"
    assert "waiting" not in cli("stats").out
    assert cli("count", "--store", COPIES).out == "2\n"
    store.close()


def test_relay_tells_what_it_could_not_deliver(cli: Cli, store: MirroredStore) -> None:
    ended = cli("relay", ELSEWHERE)
    assert ended.code == 1
    assert f"2 change sets wait for {NAMES[COPIES]}, which is none of those that were named" in ended.err
    with memory.mirror(PRIMARY, ELSEWHERE, COPIES) as both:
        put(both, "cyd")
    ended = cli("relay", ELSEWHERE, COPIES)
    assert ended.code == 1
    assert ended.out.splitlines()[1:] == [f"{NAMES[COPIES]}: delivered 3 change sets"]
    assert "error: " in ended.err
    assert f"1 change sets wait for {NAMES[ELSEWHERE]}\n" in ended.err
    store.close()


def test_what_waits_for_nobody_any_more_is_thrown_away_when_told_to(cli: Cli, store: MirroredStore) -> None:
    with memory.mirror(PRIMARY, ELSEWHERE) as other:
        put(other, "cyd")
    assert cli("relay", COPIES).code == 1
    in_use = cli("relay", COPIES, "--forget", NAMES[COPIES])
    assert (in_use.code, "is a replica of this store" in in_use.err) == (1, True)
    assert cli("relay", "--forget", NAMES[ELSEWHERE]).out == "forgot 1 change sets\n"
    assert cli("relay", COPIES).code == 0
    assert "name the replicas" in cli("relay").err
    store.close()


def test_relay_needs_a_store_that_is_there(cli: Cli) -> None:
    assert "there is no file" in cli("relay", COPIES).err
    assert not Path("conversations.db").exists()


def test_following_goes_on_until_it_is_ended(store: MirroredStore, tmp_path: Path) -> None:
    relay = start("relay", COPIES, "--follow", "--interval", "0.01", cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert relay.stdout is not None
    delivered = 0
    for expected in (2, 3):
        while delivered < expected:
            told = relay.stdout.readline().decode().removeprefix(f"{NAMES[COPIES]}: delivered ")
            delivered += int(told.removesuffix(" change sets\n"))
        put(store, f"more {expected}", None, run())
    relay.send_signal(signal.SIGINT)
    relay.communicate()
    assert relay.returncode == 130
    store.relay()
    with memory.connect(COPIES) as copies:
        assert list(verify(store, copies)) == []
    store.close()
