"""Griptape's conversations, as its drivers keep them: one JSON object with all the runs."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from memory.domain.entities import Run
from memory.domain.records import encode_metadata
from memory.domain.values import Json, to_datetime
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.builders import conversation
from memory.formats.griptape import KEY, loadable_run_json, run_record
from memory.port.changes import Change

_REST: Final = frozenset(["attributes", "envelope", "key", "text", "thread"])
_SUMMARY: Final = ("summary", "summary_index")  # fields of the memory up to 0.30, metadata since


def read_envelope(id: Json, value: Any, at: int, beside: dict[str, Json] | None = None) -> Change:
    """Return the conversation that an object of Griptape's is, of any release.

    Its ``metadata`` is the conversation's. What else there is beside the runs (``type``, ``max_runs``, ``summary`` of the
    releases up to 0.30) is kept in the metadata under ``griptape.envelope``; metadata that no store can keep,
    as ``griptape.text``.

    Args:
        id: of the conversation.
        value: what ``json.loads`` made of it.
        at: when it was made, in microseconds since 1970; Griptape does not write that.
        beside: what else the place it comes from says; kept under ``griptape`` too.

    Raises:
        InvalidValueError: it is no such object, or the id cannot be one.
    """
    if not isinstance(value, dict) or not ("runs" in value or "metadata" in value):
        raise InvalidValueError("it is no conversation of Griptape's: that is an object with runs and metadata")
    runs = value.get("runs", [])
    if not isinstance(runs, list):
        raise InvalidValueError(f"runs must be a list, not {type(runs).__name__}")
    created_at = to_datetime(at)
    metadata = metadata_of({name: part for name, part in value.items() if name != "runs"}, beside or {})
    return conversation(id, metadata, [run_record(run, created_at) for run in runs], at)


def metadata_of(fields: dict[str, Any], beside: dict[str, Json]) -> dict[str, Json]:
    """Return a conversation's metadata: that among the fields of an envelope, and the other fields under ``griptape``."""
    given = fields.get("metadata")
    metadata = given if isinstance(given, dict) else {}
    others = {name: part for name, part in fields.items() if name != "metadata" or part is not metadata}
    rest: dict[str, Json] = {**beside, **({"envelope": others} if others else {})}
    together = extras.join(metadata, KEY, rest)
    try:
        encode_metadata(together)
    except InvalidValueError:
        return {KEY: {**beside, "text": json.dumps(fields)}}
    return together


def write_envelope(metadata: dict[str, Any], runs: Iterable[Run]) -> Iterator[str]:
    """Yield, in pieces, the text of a conversation that Griptape 1.13 loads; it is Griptape's own text where that wrote it."""
    yield '{"runs": ['
    comma = ""
    for run in runs:
        yield comma + json.dumps(loadable_run_json(run))
        comma = ", "
    yield f'], "metadata": {json.dumps(metadata_json(metadata))}}}'


def metadata_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that Griptape is to have: what it read of its own comes back, a summary where 1.13 looks for it."""
    others, rest = extras.split(metadata, KEY, _REST)
    envelope = rest.get("envelope")
    if isinstance(rest.get("text"), str):
        try:
            envelope = json.loads(rest["text"])
        except (ValueError, RecursionError):
            return metadata
        given = envelope.get("metadata") if isinstance(envelope, dict) else None
        others = {**given, **others} if isinstance(given, dict) else others
    if not isinstance(envelope, dict):
        return others
    return {**{name: envelope[name] for name in _SUMMARY if envelope.get(name) is not None}, **others}
