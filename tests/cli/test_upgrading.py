"""`memory upgrade-metadata`."""

import sys
from pathlib import Path

import pytest

import memory
from memory import Conversation
from memory.adapters.in_memory import InMemoryRepository
from tests.cli.conftest import Cli

MODULE = """
from dataclasses import dataclass

from memory import Versioned


@dataclass
class Ticket:
    customer: str


class metadata:
    ticket = Versioned(Ticket, version=2, upgrade=lambda old, version: {"customer": old["user"]})
"""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> memory.Store:
    repository = InMemoryRepository()
    monkeypatch.setattr("memory.core.connect.open_repository", lambda _: repository)
    monkeypatch.setenv("MEMORY_URL", "memory://")
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(sys.modules, "shop_tickets", raising=False)
    (tmp_path / "shop_tickets.py").write_text(MODULE)
    store = memory.Store(repository)
    for name in ("default", "other"):
        with store.namespace(name).begin() as uow:
            uow.conversations.add(Conversation("a", {"user": "ada"}))
    return store


def test_the_metadata_of_all_namespaces_or_of_one_is_upgraded(store: memory.Store, cli: Cli) -> None:
    ended = cli("upgrade-metadata", "shop_tickets:metadata.ticket", "--namespace", "other")
    assert (ended.code, ended.out, ended.err) == (0, "upgraded 1 conversation\n", "")
    assert store.conversations.get("a").metadata == {"user": "ada"}
    assert cli("upgrade-metadata", "shop_tickets:metadata.ticket").out == "upgraded 1 conversation\n"
    assert store.conversations.get("a").metadata == {"customer": "ada", "_version": 2}
    assert cli("upgrade-metadata", "shop_tickets:metadata.ticket").out == "upgraded 0 conversations\n"


def test_metadata_that_does_not_fit_is_reported_and_the_rest_is_upgraded(store: memory.Store, cli: Cli) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("0", {"nobody": 1}))
    ended = cli("upgrade-metadata", "shop_tickets:metadata.ticket")
    assert (ended.code, ended.out) == (1, "upgraded 2 conversations\n")
    assert ended.err.startswith(
        "not upgraded: the metadata of conversation '0' does not fit the store's type: KeyError"
    )


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", ["shop_tickets", "shop_tickets:none", "no_such_module:x", ":x", "shop_tickets:"])
def test_a_name_without_an_object_is_an_error(cli: Cli, name: str) -> None:
    ended = cli("upgrade-metadata", name)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"error: {name!r} names no object: ")
    assert "write module:object" in ended.err


@pytest.mark.usefixtures("store")
def test_an_object_that_is_no_type_is_an_error(cli: Cli) -> None:
    ended = cli("upgrade-metadata", "shop_tickets:dataclass")
    assert ended.code == 1
    assert "the type of metadata must be a dataclass" in ended.err
