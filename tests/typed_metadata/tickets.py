"""The types that the tests use."""

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, computed_field
from typing_extensions import TypeAliasType, TypedDict

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("12345678-1234-5678-1234-567812345678")
Name = NewType("Name", str)
Tags = TypeAliasType("Tags", list[str])


class Priority(enum.StrEnum):
    URGENT = "urgent"
    NORMAL = "normal"


class Point(enum.Enum):
    ORIGIN = (0, 0)


@dataclass
class Customer:
    name: Name
    since: date | None = None


class Address(TypedDict):
    city: str
    zip: NotRequired[int]


@dataclass
class Ticket:
    customer: Customer
    due: datetime
    priority: Priority = Priority.NORMAL
    price: Decimal = Decimal(0)
    score: float = 0
    ids: list[UUID] = field(default_factory=list)
    pair: tuple[int, str] = (0, "")
    times: tuple[datetime, ...] = ()
    by_priority: dict[Priority, list[date]] = field(default_factory=dict)
    kind: Literal["refund", "question"] = "question"
    either: int | str | UUID | None = None
    address: Optional[Address] = None  # noqa: UP045  # both spellings are decoded
    children: "list[Ticket]" = field(default_factory=list)
    point: Point = Point.ORIGIN
    tags: Annotated[Tags, {"not": "hashable"}] = field(default_factory=list)
    anything: Any = None
    plain: dict = field(default_factory=dict)  # type: ignore[type-arg]
    label: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if self.score < 0:
            raise ValueError("a score is not negative")
        self.label = f"{self.customer.name}/{self.priority}"


FULL = Ticket(
    Customer(Name("ada"), date(2020, 2, 29)),
    NOON,
    Priority.URGENT,
    Decimal("12.5"),
    0.5,
    [ID],
    (1, "x"),
    (NOON, NOON),
    {Priority.URGENT: [date(2026, 1, 31)]},
    "refund",
    ID,
    {"city": "Paris", "zip": 75001},
    [Ticket(Customer(Name("grace")), NOON)],
    Point.ORIGIN,
    ["a"],
    {"any": [1]},
    {"b": None},
)


class Model(BaseModel):
    customer: str
    due: datetime
    price: Decimal = Decimal(0)
    id: UUID = ID
    priority: Priority = Priority.NORMAL
    tags: set[str] = Field(default_factory=set)
    link: HttpUrl | None = None
    renamed: int = Field(default=0, alias="someOtherName")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return self.customer.upper()


class StrictModel(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    due: datetime
    pair: tuple[int, int]


class Fields(TypedDict):
    customer: str
    due: NotRequired[datetime]
