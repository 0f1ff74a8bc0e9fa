"""Query criteria. The pure function `Criterion.matches` defines their meaning, and every store returns the same results.

    (where("priority") <= 1) & (where("customer.tier") == "gold") & ~where("closed").exists()

A comparison between different types is false, never an error. Integers and floats compare as numbers, exactly; a bool is
not a number; strings compare by code point. ``!=`` is exactly ``not ==``, so it also matches conversations without the key.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Never, TypeAlias, TypeVar

from memory.domain.encoding import to_json
from memory.domain.entities import Conversation
from memory.domain.values import MAX_DEPTH, Json, check_id_characters, decode, encode, key_of, to_microseconds
from memory.errors import InvalidValueError

if TYPE_CHECKING:
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

Operator: TypeAlias = Literal["==", "<", "<=", ">", ">="]
Path: TypeAlias = tuple[str, ...]
FieldName: TypeAlias = Literal["id", "created_at", "updated_at", "last_run_at", "run_count"]
Scalar: TypeAlias = int | float | str
Ordered: TypeAlias = "Scalar | date | Decimal | UUID | Enum"
"""What metadata is compared with; `to_json` encodes what JSON lacks. A ``datetime`` is a ``date``."""
Bound = TypeVar("Bound")

_COMPARE: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Criterion(ABC):
    """A condition on one conversation. Combine with ``&``, ``|`` and ``~`` (not ``and``, ``or``, ``not``)."""

    __slots__ = ()

    @abstractmethod
    def matches(self, conversation: Conversation) -> bool:
        """Return whether this conversation meets the condition."""

    def __and__(self, other: "Criterion") -> "Criterion":
        # Flat, so that a long chain of `&` does not nest.
        return AllOf((*(self.parts if isinstance(self, AllOf) else (self,)), check_criterion(other)))

    def __or__(self, other: "Criterion") -> "Criterion":
        return AnyOf((*(self.parts if isinstance(self, AnyOf) else (self,)), check_criterion(other)))

    def __invert__(self) -> "Criterion":
        return Not(self)

    def __bool__(self) -> Never:
        raise TypeError(
            "a criterion has no truth value: combine criteria with & | ~ and parentheses, not with `and`, `or`, `not` or "
            "chained comparisons"
        )


def check_criterion(value: object) -> Criterion:
    """Return the value if it is a criterion; the `InvalidValueError` says what to write instead."""
    if isinstance(value, MetadataTerm | FieldTerm):
        also = f", or write {value!r}.exists()" if isinstance(value, MetadataTerm) else ""
        raise InvalidValueError(f"{value!r} is not a criterion yet: compare it, as in {value!r} == ...{also}")
    if not isinstance(value, Criterion):
        raise InvalidValueError(f"{value!r:.100} is not a criterion: make one with where(...)")
    return value


@dataclass(frozen=True, slots=True)
class AllOf(Criterion):
    """Matches if all parts match; ``AllOf(())`` matches every conversation."""

    parts: tuple[Criterion, ...] = ()

    def matches(self, conversation: Conversation) -> bool:
        return all(part.matches(conversation) for part in self.parts)


EVERYTHING: Final = AllOf()
"""The criterion that matches every conversation."""


@dataclass(frozen=True, slots=True)
class AnyOf(Criterion):
    """Matches if at least one part matches; ``AnyOf(())`` matches none."""

    parts: tuple[Criterion, ...] = ()

    def matches(self, conversation: Conversation) -> bool:
        return any(part.matches(conversation) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Criterion):
    """Matches if the part does not."""

    part: Criterion

    def matches(self, conversation: Conversation) -> bool:
        return not self.part.matches(conversation)

    def __invert__(self) -> Criterion:
        return self.part


@dataclass(frozen=True, slots=True)
class FieldCompares(Criterion):
    """Compares a field of the conversation itself with a value: times in microseconds since 1970, ids as `key_of` them."""

    field: FieldName
    operator: Operator
    value: Scalar

    def matches(self, conversation: Conversation) -> bool:
        if self.field == "id":
            return _COMPARE[self.operator](key_of(conversation.id), self.value)
        record = conversation.record
        return record is not None and _COMPARE[self.operator](getattr(record, self.field), self.value)


class OnMetadata(Criterion):
    """A condition on the metadata value at a path; it never matches if the path does not exist."""

    __slots__ = ()
    path: Path

    def matches(self, conversation: Conversation) -> bool:
        value: Json = conversation.metadata
        for key in self.path:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return self.matches_value(value)

    @abstractmethod
    def matches_value(self, value: Json) -> bool:
        """Return whether the value at the path meets the condition."""


@dataclass(frozen=True, slots=True)
class Exists(OnMetadata):
    """Matches if the path exists, even if its value is ``None`` or empty."""

    path: Path

    def matches_value(self, value: Json) -> bool:  # noqa: ARG002  # any value matches
        return True


@dataclass(frozen=True, slots=True)
class OneOf(OnMetadata):
    """Matches if the value at the path equals one of these values."""

    path: Path
    values: tuple[Json, ...]

    def matches_value(self, value: Json) -> bool:
        return any(_equal(value, expected) for expected in self.values)


@dataclass(frozen=True, slots=True)
class Orders(OnMetadata):
    """Compares the value at the path with a bound; never matches unless both are numbers or both are strings."""

    path: Path
    operator: Literal["<", "<=", ">", ">="]
    bound: Scalar

    def matches_value(self, value: Json) -> bool:
        if isinstance(value, bool) or not isinstance(value, str if isinstance(self.bound, str) else int | float):
            return False
        return _COMPARE[self.operator](value, self.bound)


@dataclass(frozen=True, slots=True)
class StartsWith(OnMetadata):
    """Matches if the value at the path is a string with this prefix."""

    path: Path
    prefix: str

    def matches_value(self, value: Json) -> bool:
        return isinstance(value, str) and value.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class Contains(OnMetadata):
    """Matches if the value at the path is a list and one of its elements equals this one."""

    path: Path
    element: Json

    def matches_value(self, value: Json) -> bool:
        return isinstance(value, list) and any(_equal(item, self.element) for item in value)


def _equal(left: Json, right: Json) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return left == right


class _Term(ABC, Generic[Bound]):
    """One side of a comparison. Comparing it with a value makes a criterion."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # `==` returns a criterion

    @abstractmethod
    def compares(self, operator: Operator, value: object) -> Criterion:
        """Return the criterion of one comparison."""

    def __eq__(self, value: object) -> Criterion:  # type: ignore[override]
        return self.compares("==", value)

    def __ne__(self, value: object) -> Criterion:  # type: ignore[override]
        return Not(self.compares("==", value))

    def __lt__(self, value: Bound) -> Criterion:
        return self.compares("<", value)

    def __le__(self, value: Bound) -> Criterion:
        return self.compares("<=", value)

    def __gt__(self, value: Bound) -> Criterion:
        return self.compares(">", value)

    def __ge__(self, value: Bound) -> Criterion:
        return self.compares(">=", value)

    def between(self, low: Bound, high: Bound) -> Criterion:
        """Match if ``low <= value <= high``."""
        return (self >= low) & (self <= high)


class MetadataTerm(_Term[Ordered]):
    """A metadata path, as ``where(path)`` returns it. Comparing it makes a criterion."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        dotted = ".".join(self._path)
        return f"where({(dotted if tuple(dotted.split('.')) == self._path else self._path)!r})"

    def compares(self, operator: Operator, value: object) -> Criterion:
        if operator == "==":
            return OneOf(self._path, (_operand(value),))
        return Orders(self._path, operator, _bound(value))

    def in_(self, values: Iterable[object]) -> Criterion:
        """Match if the value equals one of these; without values, never match."""
        return OneOf(self._path, tuple(_operand(value) for value in _check_values(values)))

    def exists(self) -> Criterion:
        """Match if the path exists, even if its value is ``None``."""
        return Exists(self._path)

    def startswith(self, prefix: str) -> Criterion:
        """Match if the value is a string with this prefix."""
        if not isinstance(prefix, str):
            raise InvalidValueError(f"startswith() takes a str, not {type(prefix).__name__}")
        return StartsWith(self._path, str(_operand(prefix)))

    def contains(self, element: object) -> Criterion:
        """Match if the value is a list that contains an equal element."""
        return Contains(self._path, _operand(element))


class FieldTerm(_Term[Scalar | datetime]):
    """A field of the conversation itself, such as ``where.created_at``. Comparing it makes a criterion."""

    __slots__ = ("_field",)

    def __init__(self, field: FieldName) -> None:
        self._field = field

    def __repr__(self) -> str:
        return f"where.{self._field}"

    def compares(self, operator: Operator, value: object) -> Criterion:
        return FieldCompares(self._field, operator, _field_operand(self._field, value))

    def in_(self, values: Iterable[object]) -> Criterion:
        """Match if the field equals one of these; without values, never match."""
        return AnyOf(tuple(self == value for value in _check_values(values)))


class Where:
    """The type of `where`: ``where("customer.tier")`` is a metadata path, ``where.created_at`` a field of the conversation."""

    created_at: Final = FieldTerm("created_at")
    updated_at: Final = FieldTerm("updated_at")
    last_run_at: Final = FieldTerm("last_run_at")
    run_count: Final = FieldTerm("run_count")
    id: Final = FieldTerm("id")

    def __call__(self, path: str | Path) -> MetadataTerm:
        """Return the term for a metadata path: keys separated by dots, or a tuple of keys if a key contains a dot.

        >>> where("customer.tier") == "gold"
        OneOf(path=('customer', 'tier'), values=('gold',))
        >>> where(("customer.tier",)).exists()
        Exists(path=('customer.tier',))
        """
        keys = tuple(path.split(".")) if isinstance(path, str) else path
        if not isinstance(keys, tuple) or not keys or not all(isinstance(key, str) for key in keys):
            raise InvalidValueError(f"a path must be a str or a non-empty tuple of str, not {path!r}")
        return MetadataTerm(keys)


where: Final = Where()
"""The entry point for making criteria; see `Where`."""


def check_depth(criterion: Criterion) -> Criterion:
    """Return the criterion if its nesting is within Python's recursion limit; raise `InvalidValueError` otherwise."""
    level = [criterion]
    for _ in range(MAX_DEPTH + 2):  # + 2: the outermost combination, and a negated leaf
        level = [inner for part in level for inner in _inside(part)]
        if not level:
            return criterion
    raise InvalidValueError(f"the criterion nests deeper than {MAX_DEPTH} levels")


def _inside(criterion: Criterion) -> tuple[Criterion, ...]:
    if isinstance(criterion, AllOf | AnyOf):
        return criterion.parts
    return (criterion.part,) if isinstance(criterion, Not) else ()


def _check_values(values: Iterable[object]) -> Iterable[object]:
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise InvalidValueError(f"in_() takes a list of values, as in in_([{values!r:.60}])")
    return values


def _operand(value: object) -> Json:
    """Return a deep copy of the value, which the caller cannot change; raise `InvalidValueError` if no store can keep it."""
    return decode(encode(value, "the value to compare with", to_json))


def _bound(value: object) -> Scalar:
    bound = _operand(value)
    if isinstance(bound, bool) or not isinstance(bound, int | float | str):
        raise InvalidValueError(f"only numbers and strings can be ordered, not {value!r}")
    return bound


def _field_operand(field: FieldName, value: object) -> Scalar:
    if field in ("created_at", "updated_at", "last_run_at"):
        return to_microseconds(value, f"the value to compare {field} with")
    expected = str if field == "id" else int
    if not isinstance(value, expected) or isinstance(value, bool):
        raise InvalidValueError(f"{field} can only be compared with a {expected.__name__}, not with {value!r}")
    if isinstance(value, str):  # an id cannot contain other characters, and some databases cannot compare with them
        return key_of(check_id_characters(value, "the value to compare the id with"))
    return max(-1, min(value, 2**53))  # clamped beyond every possible run count, so that it fits any database's integer
