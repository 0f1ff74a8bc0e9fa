import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memory
from memory import Conversation, Run, Store, where
from memory.core.batches import Batched, Batches
from memory.core.faces import Steps
from memory.domain.values import now, to_datetime
from tests.cli.conftest import Cli

URL = "sqlite:///conversations.db"
LONG_AGO = datetime.now(UTC) - timedelta(days=100)


@pytest.fixture(autouse=True)
def two_customers() -> None:
    """Each customer has a conversation of three runs and one of long ago in two namespaces."""
    with memory.connect(URL) as store:
        for name in ("default", "tenant"):
            for customer in ("ada", "bob"):
                fill(store.namespace(name), customer)


def fill(store: Store, customer: str) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(customer, {"customer": customer}))
        uow.runs.append(customer, *[Run(n, n) for n in range(3)])
        uow.conversations.add(Conversation(f"{customer} old", {"customer": customer}, created_at=LONG_AGO))
        uow.runs.append(f"{customer} old", Run("then", "then", created_at=LONG_AGO))


def left(namespace: str = "default") -> dict[str, int]:
    """Return the number of runs of each conversation in the store."""
    with memory.connect(URL, namespace=namespace) as store:
        return {one.id: one.run_count for one in store.conversations.iterate()}


def conflicting(_: Batches, __: list[Batched]) -> Steps[list[Batched]]:
    """Commit nothing, because somebody else edits every conversation faster."""
    yield from ()
    return []


def expire() -> None:
    for name in ("default", "tenant"):
        with memory.connect(URL, namespace=name) as store, store.begin() as uow:
            uow.conversations.add(Conversation("expired", expires_at=to_datetime(now())))


def test_erase_deletes_everything_of_one_person(cli: Cli) -> None:
    ended = cli("erase", 'customer == "ada"', "--yes")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("erased 2 conversations with 4 runs in 1 namespace; deleted ")
    assert left() == {"bob": 3, "bob old": 1}
    assert left("tenant") == {"ada": 3, "ada old": 1, "bob": 3, "bob old": 1}


def test_erase_files_a_report_and_verifies(cli: Cli) -> None:
    expression = 'customer == "ada"'
    ended = cli("erase", expression, "--yes", "--verify", "--all-namespaces", "--report", "report.json")
    assert ended.code == 0
    assert "erased 4 conversations with 8 runs in 2 namespaces" in ended.out
    assert ended.out.endswith("compared 4 conversations: none left\n")
    report = json.loads(Path("report.json").read_text())
    assert (report["store"], report["criterion"], report["is_complete"]) == (URL, expression, True)
    assert (report["conversations"], report["runs"], report["checked"], report["left"]) == (4, 8, 4, 0)
    assert report["found_in"] == {"default": 2, "tenant": 2}
    assert left("tenant") == {"bob": 3, "bob old": 1}


def test_erase_writes_the_report_to_stdout(cli: Cli) -> None:
    ended = cli("erase", "run_count >= 0", "--yes", "--report", "-")
    assert json.loads(ended.out)["conversations"] == 4
    assert left() == {}


def test_erase_that_cannot_file_its_report_does_not_begin(cli: Cli) -> None:
    ended = cli("erase", 'customer == "ada"', "--yes", "--report", "nowhere/report.json")
    assert (ended.code, "nowhere/report.json" in ended.err) == (1, True)
    assert len(left()) == 4


def test_erase_says_what_is_left(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.core.batches.Batches.commit", conflicting)
    ended = cli("erase", 'customer == "ada"', "--yes", "--report", "report.json")
    assert (ended.code, ended.err) == (1, "error: 2 conversations left: run the command again\n")
    assert json.loads(Path("report.json").read_text())["is_complete"] is False


def test_erase_asks_on_a_terminal_only(cli: Cli) -> None:
    ended = cli("erase", 'customer == "ada"')
    assert (ended.code, "nobody can confirm: erase without asking by --yes" in ended.err) == (1, True)
    assert len(left()) == 4


def test_erase_tells_what_waits_for_replicas(cli: Cli) -> None:
    with memory.mirror(URL, search="sqlite:///copies.db") as mirrored:
        fill(mirrored, "cyd")
        mirrored.erase(where("customer") == "cyd")
    ended = cli("erase", 'customer == "ada"', "--yes")
    assert "search: " in ended.out
    assert "left to relay" in ended.out


def test_retain_removes_what_is_idle_and_trims_the_others(cli: Cli) -> None:
    arguments = ("retain", "--idle", "90d", "--keep-last", "2", "--where", 'customer == "ada"')
    assert cli(*arguments, "--dry-run").out == "would remove 1 idle conversation, trim 1: 2 runs\n"
    assert len(left()) == 4
    ended = cli(*arguments)
    assert (ended.code, ended.out, ended.err) == (0, "removed 1 idle conversation, trimmed 1: 2 runs\n", "")
    assert left() == {"ada": 2, "bob": 3, "bob old": 1}
    assert len(left("tenant")) == 4


def test_retain_in_all_namespaces_purges_too(cli: Cli) -> None:
    expire()
    ended = cli("retain", "--idle", "12w", "--all-namespaces")
    assert ended.out == "removed 4 idle conversations, trimmed 0: 4 runs; purged 2 expired conversations\n"
    assert left() == left("tenant") == {"ada": 3, "bob": 3}


def test_purge(cli: Cli) -> None:
    expire()
    assert cli("purge").out == "deleted 1 expired conversation\n"
    assert cli("purge", "--all-namespaces").out == "deleted 1 expired conversation\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("retain",), "say what to keep: --idle, --keep-last or both"),
        (("retain", "--idle", "90"), "write a time as a number with m, h, d or w, such as 90d, not '90'"),
        (("retain", "--idle", "999999w"), "idle must be positive and at most 100 years"),
        (("retain", "--idle", "1d", "--all-namespaces", "--namespace", "a"), "--all-namespaces excludes --namespace"),
        (("purge", "--all-namespaces", "--namespace", "a"), "--all-namespaces excludes --namespace"),
        (("erase", "id == ", "--yes"), "invalid syntax"),
        (("erase", "run_count > 0", "--all-namespaces", "--namespace", "a"), "--all-namespaces excludes --namespace"),
    ],
)
def test_mistakes_are_refused_with_what_to_write(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    ended = cli(*arguments)
    assert (ended.code, message in ended.err) == (1, True), ended.err
    assert len(left()) == 4


def test_a_missing_file_is_not_made(cli: Cli) -> None:
    ended = cli("retain", "--idle", "1d", "--store", "sqlite:///typo.db")
    assert (ended.code, "there is no file typo.db" in ended.err) == (1, True)
    assert not Path("typo.db").exists()
