"""Convert Griptape's artifacts to JSON, by the fields of their classes.

The JSON is that of Griptape's own ``to_dict``, hundreds of times faster. No module that stored data names is imported.
"""

import base64
import json
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast

import attrs
import griptape.artifacts as theirs
from griptape.artifacts import BaseArtifact
from griptape.common import Reference, ToolAction
from griptape.mixins.serializable_mixin import SerializableMixin
from pydantic import BaseModel, RootModel

from memory.domain.values import Json

_EXACT: Final = frozenset([str, bool, int, float, type(None)])


@attrs.define
class RawArtifact(BaseArtifact):
    """An artifact of an unknown class, or one that cannot be read. Its JSON is stored again unchanged."""

    value: Any = attrs.field(metadata={"serializable": True})
    # Griptape looks for a class by the name of its module: with this it can read what it serialized.
    module_name: str = attrs.field(default=__name__, kw_only=True, metadata={"serializable": True})

    def to_text(self) -> str:
        """Return the value if it is a string, otherwise the whole JSON."""
        value = self.value.get("value") if isinstance(self.value, dict) else self.value
        return value if isinstance(value, str) else json.dumps(self.value)

    def __len__(self) -> int:
        return len(self.to_text())


class _Field(NamedTuple):
    """One field of a class: its names in JSON, in the constructor and in Python, and how its value is written and read.

    ``read`` is None if the value contains other objects: one of the class ``holds``, or else a list of artifacts.
    """

    key: str
    argument: str
    name: str
    get: Callable[[Any], Any]
    write: Callable[[Any], Json]
    read: Callable[[Any], Any] | None
    holds: type | None


def to_json(value: object) -> Json:
    """Return the JSON of an artifact, or of any part of one.

    >>> from griptape.artifacts import TextArtifact
    >>> to_json(TextArtifact("Hello", id="1", name="greeting"))
    {'type': 'TextArtifact', 'id': '1', 'reference': None, 'meta': {}, 'name': 'greeting', 'value': 'Hello'}
    """
    if type(value) in _EXACT:
        return cast(Json, value)
    if isinstance(value, RawArtifact):
        return cast(Json, value.value)
    if isinstance(value, SerializableMixin):
        cls = type(value)
        return {
            field.key: cls.__name__ if field.key == "type" else field.write(field.get(value))
            for field in fields_of(cast(Any, cls))
        }
    if isinstance(value, dict):
        return {key if type(key) is str else _key(key): to_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(each) for each in value]
    return _other(value)


def _other(value: object) -> Json:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, BaseModel):
        return cast(Json, value.model_dump(mode="json"))
    if isinstance(value, str):  # of a subclass, such as an enum: the store keeps exact types only
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if callable(to_dict := getattr(type(value), "to_dict", None)):  # as Griptape's patch of the json module does
        return to_json(to_dict(value))
    raise TypeError(f"a {type(value).__name__} cannot be converted to JSON")


def _key(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(key)


@cache
def fields_of(cls: type) -> tuple[_Field, ...]:
    """Return the fields of a Griptape class that its JSON contains."""
    return tuple([_field(cls, attribute) for attribute in attrs.fields(cls) if attribute.metadata.get("serializable")])


def _field(cls: type, attribute: "attrs.Attribute[Any]") -> _Field:
    argument = attribute.metadata.get("deserialization_key") or attribute.alias or attribute.name
    name = attribute.metadata.get("serialization_key") or attribute.name
    key = attribute.alias or attribute.name
    declared = attribute.type if isinstance(attribute.type, str) else getattr(attribute.type, "__name__", "")
    read: Callable[[Any], Any] | None = _DECLARED.get(declared, _same)
    write: Callable[[Any], Json] = _string if declared == "str" else to_json
    holds: type | None = None
    if key == "reference":
        read, holds = None, Reference
    elif key == "value" and issubclass(cls, theirs.ListArtifact):
        read = None
    elif key == "value" and issubclass(cls, theirs.ActionArtifact):
        read, holds = None, ToolAction
    elif key == "value" and issubclass(cls, theirs.ModelArtifact):
        read = RootModel
    elif key == "value" and issubclass(cls, theirs.JsonArtifact):
        read = _for_json_artifact
    return _Field(key, argument, name, attrgetter(name), write, read, holds)


def _same(value: Any) -> Any:
    return value


def _string(value: Any) -> Json:
    return None if value is None else str(value)


def _for_json_artifact(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, str) else value  # the class's converter parses strings as JSON


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(value)
        return value

    return read


# By the declared type of a field: how its JSON is read.
_DECLARED: Final[dict[str, Callable[[Any], Any]]] = {
    "str": _exactly(str),
    "int": _exactly(int),
    "bool": _exactly(bool),
    "bytes": lambda value: base64.b64decode(_exactly(str)(value), validate=True),
    "dict": _exactly(dict),
    "dict[str, Any]": _exactly(dict),
}
