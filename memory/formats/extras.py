"""Format-specific fields without an equivalent here, stored in the metadata under one key named after the format."""

from typing import Any, Final

from memory.domain.values import Json

_SHADOWED: Final = "shadowed"  # the application's own value under the format's key


def join(metadata: dict[str, Json], key: str, rest: dict[str, Json]) -> dict[str, Json]:
    """Return metadata with a format's fields under its key; a value already under this key is kept among them.

    >>> join({"customer": "ada"}, "griptape", {"keys": ["id", "input", "output"]})
    {'customer': 'ada', 'griptape': {'keys': ['id', 'input', 'output']}}
    """
    if key in metadata:
        rest = {**rest, _SHADOWED: metadata[key]}
    return {**metadata, key: rest} if rest else metadata


def split(metadata: dict[str, Any], key: str, known: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Undo `join`: return the metadata and the format's fields. If `join` did not write the key, it counts as metadata.

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
