"""Griptape's artifacts to JSON and back, by their fields: what Griptape's own ``to_dict`` writes, hundreds of times faster.

No module that stored data names is imported: a kind is looked up among Griptape's own artifacts, and those that the application
gives. What cannot be read as its kind says is a `RawArtifact`, which holds the JSON and is written as it was read.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast

import attrs
import griptape.artifacts as theirs
from griptape.artifacts import BaseArtifact, TextArtifact
from griptape.common import Reference, ToolAction
from griptape.memory.structure import Run as GriptapeRun
from griptape.mixins.serializable_mixin import SerializableMixin
from pydantic import BaseModel, RootModel

from memory.domain import Run
from memory.formats.griptape import KEY, run_json, run_record, texts_of
from memory.values import Json

_log = logging.getLogger("memory")
_EXACT: Final = frozenset([str, bool, int, float, type(None)])


@attrs.define
class RawArtifact(BaseArtifact):
    """An artifact of a kind that is not known here, or that could not be read: its JSON, written again as it was.

    Attributes:
        value: the JSON.
    """

    value: Any = attrs.field(metadata={"serializable": True})
    # Griptape looks for a class by the name of its module: so it reads again what it has serialized itself.
    module_name: str = attrs.field(default=__name__, kw_only=True, metadata={"serializable": True})

    def to_text(self) -> str:
        """Return what it says: its own value if that is a text, or all of its JSON."""
        value = self.value.get("value") if isinstance(self.value, dict) else self.value
        return value if isinstance(value, str) else json.dumps(self.value)

    def __len__(self) -> int:
        return len(self.to_text())


class Codec:
    """Makes our runs of Griptape's, and Griptape's of ours.

    Args:
        kinds: artifact classes of the application's own, which stored data may name.
    """

    def __init__(self, kinds: Iterable[type[BaseArtifact]] = ()) -> None:
        known = [getattr(theirs, name) for name in theirs.__all__ if name != "BaseArtifact"]
        self._kinds = {kind.__name__: kind for kind in (*known, *kinds)}

    def to_ours(self, run: GriptapeRun) -> Run:
        """Return the run to be stored. A part that no store can keep is kept as its text, with a warning in the log."""
        ours = run_record(_run(run))
        if texts := texts_of(ours):
            _log.warning(
                "no store can keep %s of run %r of Griptape as it is: kept as text", " and ".join(texts), run.id
            )
        return ours

    def digest(self, run: GriptapeRun) -> bytes:
        """Return what stands for the content of a run: equal contents, equal digests."""
        text = json.dumps(_run(run))
        return blake2b(text.encode(), digest_size=16).digest()

    def to_theirs(self, run: Run) -> GriptapeRun:
        """Return the run for Griptape's memory. It never fails: what is not as Griptape writes it is a `RawArtifact`."""
        value = run_json(run)
        if not isinstance(value, dict):
            return GriptapeRun(id=run.id, input=RawArtifact(value), output=TextArtifact(""))
        run_id, meta = value.get("id"), value.get("meta")
        if KEY not in run.metadata:  # nothing is kept aside: what it has is what was written, by whomever
            value = {"input": run.input, "output": run.output}
        return GriptapeRun(
            id=run_id if isinstance(run_id, str) else run.id,
            meta=meta if isinstance(meta, dict) else None,
            input=self.artifact(value.get("input")),
            output=self.artifact(value.get("output")),
        )

    def artifact(self, value: Json) -> BaseArtifact:
        """Return the artifact that a JSON value stands for; a plain string is a text."""
        if isinstance(value, str):
            return TextArtifact(value)
        kind = self._kinds.get(value["type"]) if isinstance(value, dict) and _has_type(value) else None
        if kind is None:
            return RawArtifact(value)
        try:
            return cast(BaseArtifact, self._read(kind, cast("dict[str, Any]", value)))
        except Exception:  # noqa: BLE001  # converters and validators of any class: one bad run never fails the conversation
            return RawArtifact(value)

    def _read(self, kind: type, value: dict[str, Any]) -> object:
        given: dict[str, Any] = {}
        for part in _parts(kind):
            if part.key in value and part.key != "type":
                given[part.argument] = part.read(value[part.key]) if part.read else self._nested(part, value[part.key])
        return kind(**given)

    def _nested(self, part: "_Part", value: Any) -> object:
        """Return a value of a field that may hold other objects of Griptape's."""
        if part.holds is None:
            return [self.artifact(each) for each in value]
        return None if value is None else self._read(part.holds, _object(value))


def _run(run: GriptapeRun) -> dict[str, Json]:
    return {
        "type": "Run",
        "id": run.id,
        "meta": None if run.meta is None else _surely(run.meta, run),
        "input": _surely(run.input, run),
        "output": _surely(run.output, run),
    }


class _Part(NamedTuple):
    """One field of a class: how it is called in JSON and in Python, and what is made of its value either way.

    ``read`` is None where the value holds other objects: those of the class ``holds``, or a list of any artifacts.
    """

    key: str
    argument: str
    get: Callable[[Any], Any]
    write: Callable[[Any], Json]
    read: Callable[[Any], Any] | None
    holds: type | None


def to_json(value: object) -> Json:
    """Return the JSON of an artifact, or of anything that is in one.

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
            part.key: cls.__name__ if part.key == "type" else part.write(part.get(value))
            for part in _parts(cast(Any, cls))
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
    if isinstance(value, str):  # of a subclass, an enumeration say: the store keeps exact types
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if callable(to_dict := getattr(type(value), "to_dict", None)):  # as json does it, once Griptape is imported
        return to_json(to_dict(value))
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _key(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def _surely(value: object, run: GriptapeRun) -> Json:
    """Return the JSON of a value; if it has none, that of its text."""
    try:
        written = to_json(value)
    except Exception as error:  # noqa: BLE001  # whatever a class does: a turn that was paid for is kept as well as it can be
        _log.warning("a part of run %r of Griptape has no JSON (%s): it is kept as text", run.id, error)
    else:
        return written
    if not isinstance(value, BaseArtifact):
        return {"text": str(value)}
    return to_json(TextArtifact(str(value.value), id=str(value.id), name=str(value.name)))


@cache
def _parts(cls: type) -> tuple[_Part, ...]:
    return tuple([_part(cls, each) for each in attrs.fields(cls) if each.metadata.get("serializable")])


def _part(cls: type, each: "attrs.Attribute[Any]") -> _Part:
    argument = each.metadata.get("deserialization_key") or each.alias or each.name
    get = attrgetter(each.metadata.get("serialization_key") or each.name)
    key = each.alias or each.name
    read: Callable[[Any], Any] | None = _same
    write: Callable[[Any], Json] = to_json
    holds: type | None = None
    declared = each.type if isinstance(each.type, str) else getattr(each.type, "__name__", "")
    if declared in _DECLARED:
        read, write = _DECLARED[declared]
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
    return _Part(key, argument, get, write, read, holds)


def _same(value: Any) -> Any:
    return value


def _for_json_artifact(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, str) else value  # its converter takes a text for JSON


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(value)
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return value


def _written(convert: Callable[[Any], Json]) -> Callable[[Any], Json]:
    return lambda value: None if value is None else convert(value)


# By the type that a field declares: how its JSON is read, and written.
_DECLARED: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Json]]]] = {
    "str": (_text, _written(lambda value: value if type(value) is str else str(value))),
    "int": (_number, _written(lambda value: value if type(value) is int else int(value))),
    "bool": (_flag, _written(bool)),
    "bytes": (_bytes, to_json),
    "dict": (_object, to_json),
    "dict[str, Any]": (_object, to_json),
}


def _has_type(value: dict[str, Json]) -> bool:
    return isinstance(value.get("type"), str)
