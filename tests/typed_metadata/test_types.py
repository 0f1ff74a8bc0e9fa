"""What is stored for a type, and read again."""

import io
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

import memory
from memory import (
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    Run,
    Store,
    where,
)
from memory.adapters.in_memory import InMemoryRepository
from memory.core.events import ConversationAdded, MetadataChanged
from memory.transfer import copy, dump, read_lines, restore, verify
from memory.transfer.mirroring import MirroredStore
from tests.typed_metadata.adding import Opened, add
from tests.typed_metadata.tickets import FULL, ID, NOON, Customer, Fields, Model, Name, Priority, StrictModel, Ticket


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (Ticket, FULL),
        (Ticket, Ticket(Customer(Name("ada")), NOON)),
        (Model, Model(customer="ada", due=NOON)),
        (
            Model,
            Model.model_validate(
                {
                    "customer": "ada",
                    "due": NOON,
                    "price": "0.1",
                    "tags": ["x"],
                    "link": "https://a.b/",
                    "someOtherName": 4,
                }
            ),
        ),
        (StrictModel, StrictModel(due=NOON, pair=(1, 2))),
        (Fields, {"customer": "ada", "due": NOON}),
        (Fields, {"customer": "ada"}),
    ],
)
def test_metadata_is_read_as_it_was_written(opened: Opened, kind: Any, metadata: Any) -> None:
    store = opened(kind)
    add(store, metadata)
    found = store.conversations.get("a").metadata
    assert (type(found), found) == (type(metadata), metadata)
    with store.begin() as uow:
        for read in (uow.conversations.find()[0], next(uow.conversations.iterate()), uow.conversations.get("a")):
            assert read.metadata == metadata
        assert uow.commit().written == {}  # nothing was edited


def test_metadata_is_stored_as_json_that_queries_match(opened: Opened) -> None:
    store = opened(Ticket)
    add(store, FULL)
    add(store, Ticket(Customer(Name("grace")), NOON + timedelta(days=1)), "b")
    stored = store.untyped().conversations.get("a").metadata
    assert (stored["due"], stored["price"], stored["pair"]) == ("2026-01-31T12:00:00.000000Z", 12.5, [1, "x"])
    assert stored["by_priority"] == {"urgent": ["2026-01-31"]}
    for criterion in (
        where("due") < NOON + timedelta(seconds=1),
        where("priority") == Priority.URGENT,
        where("price") > Decimal("12.4"),
        where("ids").contains(ID),
        where("customer.since") == date(2020, 2, 29),
        where("address.city") == "Paris",
        where("label") == "ada/urgent",
    ):
        assert [found.id for found in store.conversations.find(criterion)] == ["a"]
    assert [found.id for found in store.conversations.find(order="-metadata.due")] == ["b", "a"]


def test_an_edit_is_written_and_a_look_is_not(opened: Opened) -> None:
    store = opened(Ticket)
    add(store, FULL)
    with store.begin() as uow:
        uow.conversations.get("a").metadata.customer.name = Name("grace")
    with store.begin() as uow:
        conversation = uow.conversations.get("a")
        conversation.metadata.price = Decimal("12.50")  # an equal number
        conversation.metadata.due = NOON.astimezone()  # the same moment
    found = store.conversations.get("a")
    assert (found.version, found.metadata.customer.name) == (2, "grace")


def test_a_field_with_a_default_does_not_make_an_edit_of_an_append(opened: Opened) -> None:
    add(opened(), {"customer": {"name": "ada"}, "due": "2026-01-31T12:00:00.000000Z"})
    store = opened(Ticket)
    first, second = store.begin(), store.begin()
    for uow, text in ((first, "one"), (second, "two")):
        assert uow.conversations.get("a").metadata.priority is Priority.NORMAL
        uow.runs.append("a", Run(text, ""))
    first.commit()
    second.commit()
    found = store.untyped().conversations.get("a")
    assert (found.version, found.run_count, set(found.metadata)) == (1, 2, {"customer", "due"})


class Money:
    """A codec of the application's."""

    def encode(self, metadata: Decimal) -> dict[str, Any]:
        return {"amount": metadata}

    def decode(self, stored: dict[str, Any]) -> Decimal:
        return Decimal(repr(stored["amount"]))


def test_an_object_that_encodes_and_decodes_is_a_codec(opened: Opened) -> None:
    store = opened(Money())
    add(store, Decimal("1.5"))
    add(store.untyped(), {"other": 1}, "b")
    assert store.conversations.get("a").metadata == Decimal("1.5")
    with pytest.raises(CorruptRecordError, match="KeyError: 'amount'") as caught:
        store.conversations.get("b")
    assert isinstance(caught.value.__cause__, KeyError)


def test_the_hook_of_the_store_encodes_what_a_codec_leaves(opened: Opened) -> None:
    @dataclass
    class Signal:
        value: Any

    store = opened(Signal, default=lambda value: [value.real, value.imag])
    add(store, Signal([1 + 2j, NOON]))
    assert store.conversations.get("a").metadata == Signal([[1.0, 2.0], "2026-01-31T12:00:00.000000Z"])


# Other ways into and out of a store


def test_events_have_the_typed_metadata(opened: Opened) -> None:
    store = opened(Ticket)
    events: list[Any] = []
    store.subscribe(lambda committed: events.extend(committed.events))
    add(store, FULL)
    with store.begin() as uow:
        uow.conversations.get("a").metadata.price = Decimal(3)
    added, changed = events
    assert (type(added), added.metadata) == (ConversationAdded, FULL)
    assert (type(changed), changed.metadata.price) == (MetadataChanged, 3)


def test_a_typed_store_is_exported_copied_verified_and_restored(opened: Opened, url: str) -> None:
    source = opened(Ticket)
    add(source, FULL)
    add(source.untyped(), {"does not": "fit"}, "b")
    lines = "".join(dump(source))
    assert lines == "".join(dump(source.untyped()))
    assert "".join(dump(source, where("due") < NOON + timedelta(1))).count("\n") == 1
    with memory.connect(url) as target:
        assert copy(source, target).conversations == 2
        assert list(verify(source, target)) == []
        assert target.conversations.get("b").metadata == {"does not": "fit"}
    with memory.connect(url, metadata=Ticket) as target:
        refused: list[Any] = []
        totals = restore(target, read_lines(io.BytesIO(lines.encode())), on_refusal=refused.append)
        assert (totals.conversations, totals.refused) == (1, 1)
        assert "does not fit the store's type" in str(refused[0])
        assert target.conversations.get("a").metadata == FULL


class _WithOutbox(InMemoryRepository):
    def with_outbox(self, replicas: Any) -> "_WithOutbox":
        return self


def test_a_mirror_of_a_typed_store_has_its_type() -> None:
    primary = Store(_WithOutbox(), metadata=Ticket, default=memory.to_json)
    with MirroredStore(primary, {}) as store:
        add(store, FULL)
        assert store.conversations.get("a").metadata == FULL
        assert store.serializer == primary.serializer


def test_to_dict_encodes_typed_metadata(opened: Opened) -> None:
    store = opened(Ticket)
    add(store, FULL)
    stored = store.untyped().conversations.get("a")
    assert store.conversations.get("a").to_dict() == stored.to_dict()


# Stores without a type


def test_the_order_of_keys_and_the_kind_of_mapping_are_no_edit(opened: Opened) -> None:
    store = opened()
    add(store, MappingProxyType({"a": 1, "b": {"c": 2, "d": 3}}))
    with store.begin() as uow:
        conversation = uow.conversations.get("a")
        conversation.metadata = MappingProxyType({"b": {"d": 3, "c": 2}, "a": 1})
        assert uow.commit().written == {}
        conversation.metadata = {"a": 1, "b": {"c": 2, "d": 4}}
        assert set(uow.commit().written) == {"a"}
    assert store.conversations.get("a").metadata == {"a": 1, "b": {"c": 2, "d": 4}}


def test_a_subclass_of_an_entity_is_refused_because_it_would_be_read_as_the_entity(opened: Opened) -> None:
    @dataclass(frozen=True)
    class Priced(Run):  # type: ignore[misc]  # `Run` is final
        cents: int = 0

    class Case(Conversation):  # type: ignore[misc]  # so is `Conversation`
        pass

    store = opened()
    add(store, {})
    with store.begin() as uow:
        with pytest.raises(InvalidValueError, match=r"add\(\) takes a Conversation, not a Case: .*metadata="):
            uow.conversations.add(Case("b"))
        with pytest.raises(InvalidValueError, match=r"append\(\) takes a Run, not a Priced: .* belong in its metadata"):
            uow.runs.append("a", Priced("?", "!", cents=3))
        with pytest.raises(InvalidValueError, match=r"replace\(\) takes a Run, not a Priced"):
            uow.runs.replace("a", Priced("?", "!", position=1, cents=3))
