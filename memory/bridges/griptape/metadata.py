"""Convert and merge Griptape's metadata of a conversation."""

import logging
from collections.abc import Mapping
from typing import Any, cast

from memory.bridges.griptape.artifacts import to_json
from memory.domain.entities import Run
from memory.domain.records import encode_metadata
from memory.domain.values import Json, encode
from memory.errors import InvalidValueError
from memory.formats.griptape import can_be_kept

_log = logging.getLogger("memory")


def metadata_of(meta: Mapping[str, Any]) -> dict[str, Json]:
    """Return Griptape's metadata as JSON. If that fails, log a warning and convert all values to text."""
    try:
        return cast("dict[str, Json]", to_json(dict(meta)))
    except Exception as error:  # noqa: BLE001  # classes may raise anything; the runs must be stored nevertheless
        _log.warning("the conversation's metadata cannot be converted to JSON, and is stored as text: %s", error)
        return {str(key): str(value) for key, value in meta.items()}


def metadata_text(metadata: dict[str, Json]) -> str:
    """Return the metadata as JSON text. Values that no store can keep become text, with a warning in the log."""
    try:
        return encode_metadata(metadata)
    except InvalidValueError as error:
        _log.warning("a part of the conversation's metadata cannot be stored exactly, and is stored as text: %s", error)
    kept = {key: value if can_be_kept(Run(None, None, {key: value})) else str(value) for key, value in metadata.items()}
    return encode_metadata(kept)


def merged(base: dict[str, Json], ours: dict[str, Json], theirs: dict[str, Json]) -> dict[str, Json]:
    """Three-way merge: return their metadata with our changes since ``base`` applied.

    >>> merged({"a": 1, "b": 1}, {"a": 2}, {"a": 1, "b": 1, "c": 1})
    {'a': 2, 'c': 1}
    """
    kept = {key: value for key, value in theirs.items() if key in ours or key not in base}
    return kept | {key: value for key, value in ours.items() if key not in base or differs(value, base[key])}


def differs(one: Json, other: Json) -> bool:
    """Return whether two values have different JSON."""
    try:
        return encode(one, "") != encode(other, "")
    except InvalidValueError:
        return repr(one) != repr(other)
