"""Convert Griptape's conversations in the form that its drivers store: one JSON object with all the runs."""

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


def read_envelope(id: Json, value: Any, at: int, extra: dict[str, Json] | None = None) -> Change:
    """Return the conversation for the JSON object of a Griptape conversation, of any release.

    Its ``metadata`` becomes the conversation's. Other fields besides the runs (``type``, ``max_runs``, ``summary`` of the
    releases up to 0.30) are kept in the metadata under ``griptape.envelope``, and ``extra`` under ``griptape``. If no store
    can keep them, all are kept as JSON text under ``griptape.text``. Griptape writes no time: ``at`` says when the
    conversation was made.
    """
    if not isinstance(value, dict) or not ("runs" in value or "metadata" in value):
        raise InvalidValueError("not a conversation of Griptape, which is an object with runs and metadata")
    runs = value.get("runs", [])
    if not isinstance(runs, list):
        raise InvalidValueError(f"runs must be a list, not {type(runs).__name__}")
    created_at = to_datetime(at)
    metadata = metadata_of({name: part for name, part in value.items() if name != "runs"}, extra or {})
    return conversation(id, metadata, [run_record(run, created_at) for run in runs], at)


def metadata_of(fields: dict[str, Any], extra: dict[str, Json]) -> dict[str, Json]:
    """Return a conversation's metadata: the envelope's ``metadata``, with its other fields under ``griptape``."""
    given = fields.get("metadata")
    metadata = given if isinstance(given, dict) else {}
    others = {name: part for name, part in fields.items() if name != "metadata" or part is not metadata}
    rest: dict[str, Json] = {**extra, **({"envelope": others} if others else {})}
    together = extras.join(metadata, KEY, rest)
    try:
        encode_metadata(together)
    except InvalidValueError:
        return {KEY: {**extra, "text": json.dumps(fields)}}
    return together


def write_envelope(metadata: dict[str, Any], runs: Iterable[Run]) -> Iterator[str]:
    """Yield, in pieces, a conversation as JSON that Griptape 1.13 loads; Griptape's own conversations are written unchanged."""
    yield '{"runs": ['
    comma = ""
    for run in runs:
        yield comma + json.dumps(loadable_run_json(run))
        comma = ", "
    yield f'], "metadata": {json.dumps(metadata_json(metadata))}}}'


def metadata_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata in Griptape's form: its own is restored, with the summary where Griptape 1.13 expects it."""
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
