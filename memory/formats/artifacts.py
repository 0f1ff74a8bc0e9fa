"""Griptape's artifacts: recognize them, convert other values to them, and make them loadable by Griptape 1.13."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Final, TypeAlias, TypeGuard

from memory.domain.values import Json

_Fits: TypeAlias = Callable[[Json], bool]

_COMMON: Final = frozenset(["type", "id", "reference", "meta", "name", "value"])
_TEXT_CLASSES: Final = frozenset(["ErrorArtifact", "InfoArtifact", "TextArtifact"])
_REFERENCE: Final = frozenset(["type", "id", "title", "authors", "source", "year", "url"])


def is_artifact(value: Json) -> TypeGuard[dict[str, Json]]:
    """Return whether a value looks like the JSON of an artifact, of any class and release."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("type"), str) and isinstance(value.get("id"), str) and "value" in value


def text_of(value: Json) -> str | None:
    """Return the text of a string or a text artifact; None for anything else, such as a picture.

    >>> text_of("Hello"), text_of({"type": "TextArtifact", "id": "1", "value": "Hello"}), text_of(["Hello"])
    ('Hello', 'Hello', None)
    """
    if is_artifact(value) and value["type"] in _TEXT_CLASSES:
        value = value["value"]
    return value if isinstance(value, str) else None


def artifact_of(value: Json, id: str) -> dict[str, Json]:
    """Return an artifact unchanged, and any other value as an artifact that Griptape 1.13 loads, with this id.

    A string becomes a TextArtifact, a boolean a BooleanArtifact, an object or null a JsonArtifact. Numbers and lists become a
    GenericArtifact, because Griptape's JsonArtifact turns numbers into strings and fails on lists that contain null.
    """
    if is_artifact(value):
        return value
    kind = "GenericArtifact"
    if isinstance(value, str):
        kind = "TextArtifact"
    elif isinstance(value, bool):
        kind = "BooleanArtifact"
    elif isinstance(value, dict) or value is None:
        kind = "JsonArtifact"
    return {"type": kind, "id": id, "reference": None, "meta": {}, "name": id, "value": value}


def loadable_artifact(value: Json, id: str) -> dict[str, Json]:
    """Return an artifact of any release, or any JSON value, as an artifact that Griptape 1.13 can load.

    Keys that the artifact's class does not have (those of older releases, and ``module_name``, which makes Griptape import that
    module) are dropped if null, and otherwise moved into ``meta``, which Griptape does not interpret. An artifact of an unknown
    class, or with a value that does not fit its class, is wrapped as the value of a GenericArtifact.
    """
    artifact = artifact_of(value, id)
    if artifact["type"] == "JsonArtifact" and not _is_json_value(artifact["value"]):
        artifact = {**artifact, "type": "GenericArtifact"}
    kind = artifact["type"]
    fields = CLASSES.get(kind) if isinstance(kind, str) else None
    loadable = None if fields is None else _fitted(artifact, fields, id)
    return _wrapped(artifact, id) if loadable is None else loadable


def _fitted(artifact: dict[str, Json], fields: dict[str, _Fits], id: str) -> dict[str, Json] | None:
    """Return the artifact without the keys that its class does not have; None if it is still not loadable."""
    meta = artifact.get("meta", {})
    if not isinstance(meta, dict) or not _is_text(artifact.get("name", "")):
        return None
    known = _COMMON | fields.keys()
    moved = {name: part for name, part in artifact.items() if name not in known and part is not None}
    reference = artifact.get("reference")
    if reference is not None and not _is_reference(reference):
        moved["reference"] = reference
    fitted = {name: part for name, part in artifact.items() if name in known and name not in moved}
    if moved:
        fitted["meta"] = {**moved, **meta}
    if artifact["type"] == "ListArtifact":
        _fit_items(fitted, id)
    fit = all(fields[name](fitted[name]) if name in fitted else name in _OPTIONAL for name in fields)
    return fitted if fit else None


def _fit_items(fitted: dict[str, Json], id: str) -> None:
    if not isinstance(fitted["value"], list):
        return
    items = [loadable_artifact(item, f"{id}-{number}") for number, item in enumerate(fitted["value"], 1)]
    fitted["value"] = list[Json](items)
    if fitted.get("validate_uniform_types") is True and len({str(item["type"]) for item in items}) > 1:
        fitted["validate_uniform_types"] = False


def _wrapped(artifact: dict[str, Json], id: str) -> dict[str, Json]:
    name = artifact["id"] if isinstance(artifact["id"], str) else id
    return {"type": "GenericArtifact", "id": name, "reference": None, "meta": {}, "name": name, "value": artifact}


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_bytes(value: Json) -> bool:
    try:
        return isinstance(value, str) and base64.b64encode(base64.b64decode(value)).decode() == value
    except (binascii.Error, ValueError):
        return False


def _exactly(kind: type) -> _Fits:
    return lambda value: type(value) is kind


def _is_present(value: Json) -> bool:
    return value is not None


def _is_json_value(value: Json) -> bool:
    if isinstance(value, str):
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return False
        return True
    return value is None or isinstance(value, dict) or (isinstance(value, list) and None not in value)


def _is_action(value: Json) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"type", "tag", "name", "path", "input"}:
        return False
    texts = [value.get("type", ""), value.get("tag"), value.get("name")]
    path = value.get("path")
    return all(map(_is_text, texts)) and (path is None or _is_text(path)) and isinstance(value.get("input", {}), dict)


def _is_reference(value: Json) -> bool:
    if not isinstance(value, dict) or not value.keys() <= _REFERENCE or "title" not in value:
        return False
    authors = value.get("authors", [])
    needed = [value[name] for name in ("type", "id", "title") if name in value]
    optional = [value[name] for name in ("source", "year", "url") if value.get(name) is not None]
    return isinstance(authors, list) and all(map(_is_text, [*needed, *optional, *authors]))


_OPTIONAL: Final = frozenset(["item_separator", "validate_uniform_types"])
CLASSES: Final[dict[str, dict[str, _Fits]]] = {
    "ActionArtifact": {"value": _is_action},
    "AudioArtifact": {"value": _is_bytes, "format": _is_text},
    "AudioUrlArtifact": {"value": _is_text},
    "BlobArtifact": {"value": _is_bytes},
    "BooleanArtifact": {"value": _exactly(bool)},
    "ErrorArtifact": {"value": _is_text},
    "GenericArtifact": {"value": _is_present},
    "ImageArtifact": {"value": _is_bytes, "format": _is_text, "width": _exactly(int), "height": _exactly(int)},
    "ImageUrlArtifact": {"value": _is_text},
    "InfoArtifact": {"value": _is_text},
    "JsonArtifact": {"value": _is_json_value},
    "ListArtifact": {"value": _exactly(list), "item_separator": _is_text, "validate_uniform_types": _exactly(bool)},
    "ModelArtifact": {"value": _is_present},
    "TextArtifact": {"value": _is_text},
    "UrlArtifact": {"value": _is_text},
    "VideoUrlArtifact": {"value": _is_text},
}
"""The classes of Griptape 1.13, with the keys that each has beyond the common ones, and a check of the values it can load."""
