"""What a format knows and this package does not: kept beside the metadata, under one key that is named after the format."""

from typing import Any, Final

from memory.domain.values import Json

_SHADOWED: Final = "shadowed"  # what stood under the format's key before


def join(metadata: dict[str, Json], key: str, rest: dict[str, Json]) -> dict[str, Json]:
    """Return metadata with a format's rest under its key, in the place of what stood there.

    >>> join({"customer": "ada"}, "griptape", {"keys": ["id", "input", "output"]})
    {'customer': 'ada', 'griptape': {'keys': ['id', 'input', 'output']}}
    """
    if key in metadata:
        rest = {**rest, _SHADOWED: metadata[key]}
    return {**metadata, key: rest} if rest else metadata


def split(metadata: dict[str, Any], key: str, known: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `join` put together: the metadata, and the rest; all of it is metadata where the key is somebody else's.

    Args:
        metadata: of a conversation or a run.
        key: the format's.
        known: the names that the rest can have.

    >>> split({"customer": "ada", "griptape": {"keys": ["id"]}}, "griptape", frozenset(["keys"]))
    ({'customer': 'ada'}, {'keys': ['id']})
    """
    rest = metadata.get(key)
    if not isinstance(rest, dict) or not rest or not known.issuperset(rest.keys() - {_SHADOWED}):
        return metadata, {}
    if _SHADOWED in rest:
        others = {name: rest[_SHADOWED] if name == key else value for name, value in metadata.items()}
    else:
        others = {name: value for name, value in metadata.items() if name != key}
    return others, {name: value for name, value in rest.items() if name != _SHADOWED}
