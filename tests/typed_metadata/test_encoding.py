"""Values that JSON lacks: the hook of a store, the operands of criteria, and `to_json`."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

import memory
from memory import PENDING, Conversation, InvalidValueError, Run, to_json, where
from memory.domain.criteria import Criterion
from memory.domain.values import Json

ID = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Priority(StrEnum):
    URGENT = "urgent"
    NORMAL = "normal"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Place(Enum):
    HERE = (1, 2)


@dataclass
class Refund:
    amount: Decimal
    due: date


class Order(BaseModel):
    id: UUID
    lines: tuple[int, ...] = ()


class Special(Order):
    note: str


class Basket(BaseModel):
    order: Order


CASES: list[tuple[Any, Json]] = [
    (NOON, "2026-01-31T12:00:00.000000Z"),
    (datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2))), "2026-01-31T12:00:00.000000Z"),
    (date(2026, 1, 31), "2026-01-31"),
    (ID, "12345678-1234-5678-1234-567812345678"),
    (Priority.URGENT, "urgent"),
    (Level.HIGH, 2),
    (Place.HERE, [1, 2]),
    (Decimal("12.50"), 12.5),
    (Decimal("0.1"), 0.1),
    (Decimal("3.00"), 3),
    (Decimal("1E+30"), 10**30),
    ((1, (2, ID)), [1, [2, str(ID)]]),
    (OrderedDict(a=NOON), {"a": "2026-01-31T12:00:00.000000Z"}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    ({Priority.URGENT: 1, ID: 2}, {"urgent": 1, str(ID): 2}),
    (Refund(Decimal("9.99"), date(2026, 2, 1)), {"amount": 9.99, "due": "2026-02-01"}),
    (Order(id=ID, lines=(1, 2)), {"id": str(ID), "lines": [1, 2]}),
    (Basket(order=Special(id=ID, note="x")), {"order": {"id": str(ID), "lines": [], "note": "x"}}),
]


@pytest.mark.parametrize(("value", "expected"), CASES, ids=repr)
def test_values_that_json_lacks_are_stored_by_the_hook_in_metadata_input_and_output(
    url: str, value: Any, expected: Json
) -> None:
    with memory.connect(url, default=to_json) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"value": [value]}))
            uow.runs.append("a", Run(value, {"deep": value}, {"value": value}), Run("?", PENDING, id="open"))
        with store.begin() as uow:
            uow.runs.complete("a", "open", output=value, metadata={"value": value})
        first, second = store.runs.list("a")
        assert (first.input, first.output, first.metadata) == (expected, {"deep": expected}, {"value": expected})
        assert (second.output, second.metadata) == (expected, {"value": expected})
        with store.begin() as uow:
            uow.runs.replace("a", Run("?", value, position=1))
        assert store.runs.get("a", 1).output == expected
        assert type(store.runs.get("a", 1).output) is type(expected)
        assert store.conversations.get("a").metadata == {"value": [expected]}


@pytest.mark.parametrize(("value", "expected"), [case for case in CASES if not isinstance(case[0], dict)], ids=repr)
def test_the_hook_is_one_of_json_dumps_too(value: Any, expected: Json) -> None:
    assert json.loads(json.dumps(value, default=to_json)) == expected


def test_metadata_that_the_hook_encodes_is_not_edited_as_long_as_nobody_changes_it(url: str) -> None:
    with memory.connect(url, default=to_json) as store, store.begin() as uow:
        conversation = Conversation("a", {"due": NOON})
        uow.conversations.add(conversation)
        uow.commit()
        assert (conversation.version, uow.commit().written) == (1, {})
        conversation.metadata["due"] = NOON + timedelta(days=1)
        uow.commit()
        assert conversation.version == 2


@pytest.mark.parametrize("value", [NOON, Decimal(1), ID, (1,), Priority.URGENT, Order(id=ID)])
def test_without_a_hook_the_error_names_it(url: str, value: object) -> None:
    with memory.connect(url) as store, store.begin() as uow:
        hint = r"connect\(url, default=\.\.\.\)"
        with pytest.raises(InvalidValueError, match=hint):
            uow.conversations.add(Conversation("a", {"value": value}))
        with pytest.raises(InvalidValueError, match=hint):
            uow.runs.append("a", Run(value, ""))
        with pytest.raises(InvalidValueError, match=hint):
            uow.runs.append("a", Run("", [value]))
        with pytest.raises(InvalidValueError, match=hint):
            uow.runs.complete("a", "run", output=value)
        uow.rollback()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2026, 1, 31), r"output\.x\[0\] cannot be stored: .* has no time zone: use datetime.now\(UTC\)"),  # noqa: DTZ001
        (Decimal("0.1234567890123456789"), r"output\.x\[0\] cannot be stored: .*: store it as a str"),
        (Decimal("NaN"), "store it as a str"),
        (Decimal("1E+100000"), "store it as a str"),
        (b"", r"output\.x\[0\] cannot be stored: memory.to_json does not encode a bytes"),
        (Order, "does not encode a ModelMetaclass"),
        (float("nan"), r"output\.x\[0\] is nan"),
        ({1: 2}, "has the key 1: keys must be str"),
        ({ID: 1, str(ID): 2}, "two keys that are encoded to the same text"),
    ],
)
def test_what_the_hook_cannot_encode_is_refused_with_its_path(url: str, value: object, message: str) -> None:
    with memory.connect(url, default=to_json) as store, store.begin() as uow:
        with pytest.raises(InvalidValueError, match=message):
            uow.runs.append("a", Run("", {"x": [value]}))
        uow.rollback()


def own(value: object) -> object:
    if isinstance(value, complex):
        return {"re": value.real, "im": value.imag}
    assert not isinstance(value, list | dict | str)
    if isinstance(value, bytearray):
        return value  # for ever
    if isinstance(value, set):
        return [value]  # deeper for ever
    raise TypeError(f"no {type(value).__name__}")


def test_an_own_hook_is_asked_about_what_is_not_json_and_its_answers_are_checked(url: str) -> None:
    with memory.connect(url, default=own) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"z": 1 + 2j}))
        assert store.conversations.get("a").metadata == {"z": {"re": 1.0, "im": 2.0}}
        with store.begin() as uow:
            for value, message in [(b"", "cannot be stored: no bytes"), (bytearray(), "bytearray"), ({1}, "deeper")]:
                with pytest.raises(InvalidValueError, match=message):
                    uow.runs.append("a", Run("", value))


OPERANDS = [
    where("due") < NOON + timedelta(seconds=1),
    where("due").between(NOON, NOON),
    where("day") >= date(2026, 1, 31),
    where("priority") == Priority.URGENT,
    where("priority").in_(list(Priority)),
    where("priority") != Priority.NORMAL,
    where("priority").startswith(Priority.URGENT),
    where("level") > Level.LOW,
    where("price") <= Decimal("12.50"),
    where("owner") == ID,
    where("tags").contains(Priority.URGENT),
    where("pair") == (1, 2),
]


@pytest.mark.parametrize("criterion", OPERANDS, ids=repr)
@pytest.mark.parametrize("hook", [None, to_json])
def test_criteria_take_what_json_lacks(url: str, criterion: Criterion, hook: Any) -> None:
    stored = {
        "due": "2026-01-31T12:00:00.000000Z",
        "day": "2026-01-31",
        "priority": "urgent",
        "level": 2,
        "price": 12.5,
        "owner": str(ID),
        "tags": ["urgent"],
        "pair": [1, 2],
    }
    with memory.connect(url, default=hook) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", stored))
            uow.conversations.add(Conversation("b", {}))
        assert [found.id for found in store.conversations.find(criterion & where("due").exists())] == ["a"]


def test_a_hook_may_encode_at_every_depth_that_can_be_stored(url: str) -> None:
    value: Any = (Priority.URGENT,)
    for _ in range(99):
        value = (value,)
    with memory.connect(url, default=to_json) as store, store.begin() as uow:
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", Run(value, ""))
        with pytest.raises(InvalidValueError, match="deeper than 100 levels"):
            uow.runs.append("a", Run((value,), ""))


def test_an_operand_that_no_store_can_keep_is_refused() -> None:
    for value in (object(), datetime(2026, 1, 31), Decimal("NaN")):  # noqa: DTZ001
        with pytest.raises(InvalidValueError, match="the value to compare with cannot be stored"):
            where("due") == value  # noqa: B015


def test_times_sort_as_their_texts() -> None:
    times = [
        datetime(year, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for year in (1, 999, 2026) for n in (0, 1, 10)
    ]
    texts = [to_json(time) for time in times]
    assert texts == sorted(texts)
    assert len({len(text) for text in texts}) == 1
