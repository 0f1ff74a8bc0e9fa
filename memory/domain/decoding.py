"""Decoders by type hints: they read back what `memory.domain.encoding` wrote, for dataclasses and TypedDicts."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import partial
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

from typing_extensions import ReadOnly, TypeAliasType, get_type_hints, is_typeddict

from memory.domain.encoding import is_model
from memory.domain.values import compact
from memory.errors import ConfigurationError, InvalidValueError

Decoder: TypeAlias = Callable[[Any, str], Any]
"""Returns the Python value for a JSON value, or raises `InvalidValueError`, which names the path: the second argument."""


def decoder_for(hint: Any, name: str, known: dict[Any, Decoder] | None = None) -> Decoder:
    """Return the decoder for a type hint.

    Args:
        hint: a type: JSON's own, ``datetime``, ``date``, ``UUID``, ``Decimal``, an ``Enum``, a dataclass, a ``TypedDict``, a
            pydantic model, ``Any``, or a ``list``, ``tuple``, ``dict``, union, ``Literal``, ``NewType`` or alias of these.
        name: the name of what has this type, for errors.
        known: the decoders of the classes in whose fields this hint is, which may refer to themselves.

    Raises:
        ConfigurationError: metadata cannot contain this type.

    >>> decoder_for(list[date], "days")(["2026-01-31"], "metadata.days")
    [datetime.date(2026, 1, 31)]
    """
    known = {} if known is None else known
    hint = _without_names(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return partial(_literal, arguments)
    if origin in (Union, types.UnionType):
        ordered = sorted(arguments, key=lambda option: option in _LAST)  # any text is a str
        return partial(_union, [decoder_for(option, name, known) for option in ordered])
    if (origin or hint) in (list, Sequence):
        return partial(_list, decoder_for(arguments[0] if arguments else Any, name, known))
    if (origin or hint) is tuple:
        return _tuple_decoder(arguments, name, known)
    if (origin or hint) in (dict, Mapping):
        key, element = arguments or (str, Any)
        return partial(_dict, decoder_for(key, name, known), decoder_for(element, name, known))
    if isinstance(hint, type):
        return _class_decoder(hint, name, known)
    raise _unsupported(hint, name)


def _without_names(hint: Any) -> Any:
    """Return the type itself of an alias, a ``NewType``, or an annotated type."""
    while True:
        if get_origin(hint) in (Annotated, Required, NotRequired, ReadOnly):
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeAliasType):
            hint = hint.__value__
        else:
            return hint


def _class_decoder(kind: type, name: str, known: dict[Any, Decoder]) -> Decoder:
    if issubclass(kind, Enum):
        return partial(_enum, kind)
    if is_model(kind):
        return partial(_model, kind)
    if not (is_dataclass(kind) or is_typeddict(kind)):
        raise _unsupported(kind, name)
    if kind not in known:
        known[kind] = decoder = _Object(kind)  # before its fields, which may refer to it
        hints = get_type_hints(kind, include_extras=True)
        for field in decoder.names:
            decoder.fields[field] = decoder_for(hints[field], f"{kind.__name__}.{field}", known)
    return known[kind]


class _Object:
    """The decoder of a dataclass or a TypedDict.

    Args:
        kind: the class.
    """

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.fields: dict[str, Decoder] = {}
        if is_dataclass(kind):
            every = fields(kind)
            self.names = [field.name for field in every]
            self._computed = frozenset(field.name for field in every if not field.init)
            self._required = [
                field.name
                for field in every
                if field.init and field.default is MISSING and field.default_factory is MISSING
            ]
        else:
            self.names = [*kind.__required_keys__, *kind.__optional_keys__]
            self._computed = frozenset()
            self._required = sorted(kind.__required_keys__)

    def __call__(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, path, "an object")
        for name in value:
            if name not in self.fields:
                raise InvalidValueError(f"{path}.{name} is not in {self.kind.__name__}")
        for name in self._required:
            if name not in value:
                raise InvalidValueError(f"{path}.{name} is missing, and {self.kind.__name__} has no default for it")
        decoded = {
            name: self.fields[name](item, f"{path}.{name}")
            for name, item in value.items()
            if name not in self._computed
        }
        try:
            return self.kind(**decoded)
        except (TypeError, ValueError) as error:  # of its __post_init__
            raise InvalidValueError(f"{path} is no {self.kind.__name__}: {error}") from error


def _unsupported(hint: Any, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is a {getattr(hint, '__name__', hint)}, which metadata cannot contain: use a JSON type, datetime, date, UUID, "
        "Decimal, an Enum, a dataclass, a TypedDict, a pydantic model, or a list, tuple, dict or union of these"
    )


def _wrong(value: Any, path: str, expected: str) -> InvalidValueError:
    return InvalidValueError(f"{path} must be {expected}, not {value!r:.60}")


def _any(value: Any, path: str) -> Any:  # noqa: ARG001  # a decoder
    return value


def _exactly(kind: type, value: Any, path: str) -> Any:
    if type(value) is not kind:
        raise _wrong(value, path, f"a {kind.__name__}")
    return value


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise _wrong(value, path, "None")


def _float(value: Any, path: str) -> Any:
    if type(value) not in (int, float):  # an int is a float for type checkers
        raise _wrong(value, path, "a number")
    return value


def _parsed(parse: Callable[[str], Any], expected: str, value: Any, path: str) -> Any:
    try:
        return parse(value if type(value) is str else "")
    except (ValueError, OverflowError) as error:
        raise _wrong(value, path, expected) from error


def _datetime(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("no time zone")
    return value.astimezone(UTC)


def _decimal(value: Any, path: str) -> Decimal:
    try:
        if type(value) in (int, float, str):
            return Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        pass
    raise _wrong(value, path, "a number")


_SIMPLE: Final[dict[Any, Decoder]] = {
    Any: _any,
    object: _any,
    None: _none,
    type(None): _none,
    bool: partial(_exactly, bool),
    int: partial(_exactly, int),
    str: partial(_exactly, str),
    float: _float,
    datetime: partial(_parsed, _datetime, "a time with a time zone, such as '2026-01-31T12:00:00.000000Z'"),
    date: partial(_parsed, date.fromisoformat, "a date, such as '2026-01-31'"),
    UUID: partial(_parsed, UUID, "a UUID"),
    Decimal: _decimal,
}
_LAST: Final = (str, Any, object)


def _literal(values: tuple[Any, ...], value: Any, path: str) -> Any:
    for one in values:
        plain = one.value if isinstance(one, Enum) else one
        if type(value) is type(plain) and value == plain:
            return one
    raise _wrong(value, path, f"one of {', '.join(map(repr, values))}")


def _union(options: Sequence[Decoder], value: Any, path: str) -> Any:
    errors = []
    for option in options:
        try:
            return option(value, path)
        except InvalidValueError as error:
            errors.append(str(error))
    raise InvalidValueError("; or ".join(errors))


def _list(element: Decoder, value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(value, path, "a list")
    return [element(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _tuple_decoder(arguments: tuple[Any, ...], name: str, known: dict[Any, Decoder]) -> Decoder:
    if not arguments or arguments[1:] == (...,):
        elements = partial(_list, decoder_for(arguments[0] if arguments else Any, name, known))
        return lambda value, path: tuple(elements(value, path))
    return partial(_tuple, [decoder_for(argument, name, known) for argument in arguments])


def _tuple(elements: Sequence[Decoder], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != len(elements):
        raise _wrong(value, path, f"a list of {len(elements)} elements")
    return tuple(
        [decode(item, f"{path}[{index}]") for index, (decode, item) in enumerate(zip(elements, value, strict=True))]
    )


def _dict(key: Decoder, element: Decoder, value: Any, path: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, path, "an object")
    return {key(name, f"a key of {path}"): element(item, f"{path}.{name}") for name, item in value.items()}


def _enum(kind: type[Enum], value: Any, path: str) -> Enum:
    for member in kind:
        plain = list(member.value) if isinstance(member.value, tuple) else member.value
        if type(value) is type(plain) and value == plain:
            return member
    raise _wrong(value, path, f"a value of {kind.__name__}")


def _model(kind: Any, value: Any, path: str) -> Any:
    """Return a pydantic model. Unless it configures ``extra``, unknown keys are refused: the next commit would drop them."""
    extra = None if kind.model_config.get("extra") else "forbid"
    try:
        return kind.model_validate_json(compact(value), by_name=True, by_alias=False, extra=extra)
    except ValueError as error:  # also pydantic's ValidationError
        raise InvalidValueError(f"{path} is no {kind.__name__}: {_reasons(error, path)}") from error


def _reasons(error: Any, path: str) -> str:
    if not hasattr(error, "errors"):
        return str(error)
    reasons = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join([path, *map(str, one['loc'])])}: {one['msg']}" for one in reasons)
