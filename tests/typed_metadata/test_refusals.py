"""Metadata that does not fit the type: where it is noticed, and what the error says."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict

import memory
from memory import (
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    Run,
)
from tests.typed_metadata.adding import Opened, add
from tests.typed_metadata.tickets import FULL, NOON, Customer, Fields, Model, Name, Ticket


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"customer": {"since": None}}, "metadata.customer.name is missing, and Customer has no default for it"),
        ({"customer": {"name": "ada", "age": 3}}, "metadata.customer.age is not in Customer"),
        ({"customer": {"name": 3}}, "metadata.customer.name must be a str, not 3"),
        ({"customer": []}, r"metadata.customer must be an object, not \[\]"),
        ({"due": "tomorrow"}, "metadata.due must be a time with a time zone"),
        ({"due": "2026-01-31T12:00:00"}, "metadata.due must be a time with a time zone"),
        ({"due": 3}, "metadata.due must be a time with a time zone"),
        ({"priority": "high"}, "metadata.priority must be a value of Priority, not 'high'"),
        ({"ids": ["x"]}, r"metadata.ids\[0\] must be a UUID, not 'x'"),
        ({"ids": "x"}, "metadata.ids must be a list"),
        ({"price": True}, "metadata.price must be a number"),
        ({"price": "x"}, "metadata.price must be a number"),
        ({"score": "x"}, "metadata.score must be a number"),
        ({"score": -1}, "metadata is no Ticket: a score is not negative"),
        ({"pair": [1]}, "metadata.pair must be a list of 2 elements"),
        ({"kind": "joke"}, "metadata.kind must be one of 'refund', 'question'"),
        ({"either": [1]}, "metadata.either must be a int, not .*; or .* UUID.*; or .* None.*; or .* a str"),
        ({"by_priority": {"high": []}}, "a key of metadata.by_priority must be a value of Priority"),
        ({"by_priority": []}, "metadata.by_priority must be an object"),
        ({"address": {}}, "metadata.address.city is missing"),
        ({"children": [{}]}, r"metadata.children\[0\].customer is missing"),
        ({"point": [0, 1]}, "metadata.point must be a value of Point"),
        ({"customer": {"name": "ada", "since": "2026-02-30"}}, "metadata.customer.since must be a date"),
    ],
)
def test_stored_metadata_that_does_not_fit_is_corrupt_and_named(
    opened: Opened, stored: dict[str, Any], message: str
) -> None:
    store = opened(Ticket)
    add(store.untyped(), {"customer": {"name": "ada"}, "due": "2026-01-31T12:00:00Z"} | stored)
    for read in (store.conversations.get, lambda _: store.conversations.find()):
        with pytest.raises(
            CorruptRecordError, match=f"conversation 'a' does not fit the store's type: .*{message}"
        ) as caught:
            read("a")
        assert caught.value.conversation_id == "a"
    with store.begin() as uow:  # what does not read the metadata works
        uow.runs.append("a", Run("?", "!"))
    assert store.runs.last("a", 1)[0].output == "!"


@pytest.mark.parametrize(
    ("kind", "metadata", "message"),
    [
        (Ticket, {"customer": "ada"}, "metadata must be a Ticket, not a dict"),
        (Ticket, None, "metadata must be a Ticket, not a dict"),
        (
            Ticket,
            Ticket(Customer(Name("ada")), datetime(2026, 1, 31)),  # noqa: DTZ001
            "metadata.due cannot be stored: .* no time zone",
        ),
        (Ticket, Ticket(Customer(Name("ada")), NOON, price="x"), "metadata.price must be a number"),  # type: ignore[arg-type]
        (Ticket, Ticket(Customer(3), NOON), "metadata.customer.name must be a str"),  # type: ignore[arg-type]
        (Fields, {"customr": "ada"}, "metadata.customr is not in Fields"),
        (Fields, {"customer": 3}, "metadata.customer must be a str, not 3"),
        (Fields, Model(customer="ada", due=NOON), "metadata must be a Fields"),
        (Model, Model.model_construct(customer=3, due=NOON), "metadata.customer: Input should be a valid string"),
    ],
)
def test_metadata_is_checked_before_it_is_written(opened: Opened, kind: Any, metadata: Any, message: str) -> None:
    store = opened(kind)
    with pytest.raises(InvalidValueError, match=message):
        add(store, metadata)
    assert store.conversations.count() == 0


def test_an_edit_is_checked_too(opened: Opened) -> None:
    store = opened(Model)
    add(store, Model(customer="ada", due=NOON))
    with pytest.raises(InvalidValueError, match=r"conversation 'a' .*metadata\.price: "), store.begin() as uow:
        uow.conversations.get("a").metadata.price = "cheap"
    assert store.conversations.get("a").metadata.price == 0


@dataclass
class Sub(Customer):
    age: int = 0


class SubModel(Model):
    age: int = 0


class Holder(BaseModel):
    model: Model


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (Customer, Sub(Name("ada"))),
        (Ticket, Ticket(Sub(Name("ada")), NOON)),
        (Model, SubModel(customer="ada", due=NOON)),
        (Holder, Holder(model=SubModel(customer="ada", due=NOON))),
    ],
)
def test_fields_of_a_subclass_are_refused_and_not_dropped(opened: Opened, kind: Any, metadata: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"age"):
        add(opened(kind), metadata)


class Open(BaseModel):
    model_config = ConfigDict(extra="ignore")

    customer: str


def test_keys_that_a_model_does_not_have_are_refused_unless_it_says_otherwise(opened: Opened) -> None:
    add(opened(), {"customer": "ada", "due": "2026-01-31T12:00:00Z", "vip": True})
    with pytest.raises(CorruptRecordError, match=r"metadata\.vip: Extra inputs are not permitted"):
        opened(Model).conversations.get("a")
    assert opened(Open).conversations.get("a").metadata == Open(customer="ada")


T = TypeVar("T")


@dataclass
class WithSet:
    tags: set[str]


@dataclass
class WithParameter(Generic[T]):
    value: T


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            dict,
            "must be a dataclass, a TypedDict, a pydantic model or an object with encode and decode, not <class 'dict'>",
        ),
        (3, "not 3"),
        (FULL, "an object with encode and decode"),
        (WithSet, "WithSet.tags is a set, which metadata cannot contain"),
        (WithParameter, "WithParameter.value is a T, which"),
    ],
)
def test_a_type_that_metadata_cannot_have_is_refused_when_the_store_is_opened(
    url: str, kind: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory.connect(url, metadata=kind)
