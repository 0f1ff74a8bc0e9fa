"""Convert Griptape's runs, in the JSON of any release, to our runs and back, without loss.

This module imports nothing of griptape. It never imports a module that the data names, as Griptape's ``from_dict`` does.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from memory.domain.entities import Run
from memory.domain.values import Json, first_id, new_id
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.artifacts import artifact_of, is_artifact, loadable_artifact

KEY: Final = "griptape"
"""The metadata key of runs and conversations for Griptape's fields without an equivalent in this package."""

SHOWN_FROM: Final = "griptape:shown_from"
"""The key in a run's metadata by which `memory.bridges.griptape` hides the runs before it. It is not passed to Griptape."""

_KEYS: Final = ("type", "id", "meta", "input", "output")  # of a run, in the order in which Griptape 1.13 writes them
_ARTIFACTS: Final = ("input", "output")
_REST: Final = frozenset(["keys", "values", "run", "text"])


def run_record(value: Json, created_at: datetime | None = None) -> Run:
    """Return the run for the JSON of a Griptape run. Every JSON value is accepted, and `run_json` restores it.

    Input and output are the artifacts' JSON, unchanged. The id and ``meta`` become the run's id and metadata if they are valid.
    The rest is kept in the run's metadata under ``griptape``: ``keys`` has the original keys, ``values`` the values without a
    field in `Run`. A value that is not an object is kept as ``run``.

    A value that no store can keep (it contains NaN, for example) is kept as JSON ``text``; what can be kept of it becomes the
    run's input, output and metadata all the same, and an input or output that cannot is its JSON text.

    >>> run = run_record({"type": "Run", "id": "r1", "meta": {"user": "ada"}, "input": "Hi", "output": "Hello"})
    >>> run.id, run.input, run.metadata["user"]
    ('r1', 'Hi', 'ada')
    """
    created_at = datetime.now(UTC) if created_at is None else created_at
    run = _read(value, created_at)
    if can_be_kept(run):
        return run
    text: dict[str, Json] = {KEY: {"text": json.dumps(value)}}
    if not isinstance(value, dict):
        return Run(None, None, text, created_at=created_at)
    input, output = [part if can_be_kept(Run(part, None)) else json.dumps(part) for part in (run.input, run.output)]
    metadata = {name: part for name, part in run.metadata.items() if can_be_kept(Run(None, None, {name: part}))}
    return Run(input, output, {**metadata, **text}, run.id, created_at)


def is_kept_as_text(run: Run) -> bool:
    """Return whether no store can keep the JSON that `run_record` has read, so that it is kept as text.

    >>> is_kept_as_text(run_record({"id": "r1", "meta": {"cost": float("nan")}, "input": "Hi", "output": "Hello"}))
    True
    """
    return "text" in _split(run)[1]


def can_be_kept(run: Run) -> bool:
    """Return whether a store can keep the run exactly."""
    try:
        run.to_record()
    except InvalidValueError:
        return False
    return True


def _read(value: Json, created_at: datetime) -> Run:
    if not isinstance(value, dict):
        return Run(None, None, {KEY: {"run": value}}, created_at=created_at)
    meta = value.get("meta")
    metadata = meta if isinstance(meta, dict) else {}
    run = Run(value.get("input"), value.get("output"), metadata, first_id(value.get("id")) or new_id(), created_at)
    plain = _plain(run)
    values = {name: part for name, part in value.items() if name not in plain or not _is_same(part, plain[name])}
    is_standard = tuple(value) == _KEYS and is_artifact(run.input) and is_artifact(run.output)
    rest: dict[str, Json] = {} if is_standard and not values else {"keys": list[Json](value)}
    rest |= {"values": values} if values else {}
    return replace(run, metadata=extras.join(metadata, KEY, rest))


def _plain(run: Run) -> dict[str, Any]:
    return {"type": "Run", "id": run.id, "meta": run.metadata or None, "input": run.input, "output": run.output}


def _is_same(one: Json, other: Json) -> bool:
    return one is other or (isinstance(one, str) and isinstance(other, str) and one == other)


def run_json(run: Run) -> Any:
    """Return a run as Griptape's JSON: the exact value that `run_record` read, or for our own runs JSON that Griptape 1.13 loads.

    Our strings become TextArtifacts with an id derived from the run's id, so that it is always the same. Changes of input,
    output and metadata since the run was read are included.

    >>> run_json(Run("Hi", "Hello", id="r1"))["input"]
    {'type': 'TextArtifact', 'id': 'r1-input', 'reference': None, 'meta': {}, 'name': 'r1-input', 'value': 'Hi'}
    """
    metadata, rest = _split(run)
    if "run" in rest:
        return rest["run"]
    if "text" in rest:
        return _updated(json.loads(rest["text"]), run, metadata)
    plain = _plain(replace(run, metadata=metadata))
    if not rest:
        return {**plain, **{name: artifact_of(plain[name], f"{run.id}-{name}") for name in _ARTIFACTS}}
    added = [name for name in ("meta", *_ARTIFACTS) if name not in rest["keys"] and plain[name] is not None]
    parts = {**plain, **rest.get("values", {}), **({"meta": metadata} if metadata else {})}
    return {name: parts[name] for name in [*rest["keys"], *added]}


def _updated(value: Any, run: Run, metadata: dict[str, Any]) -> Any:
    """Return a value that was kept as text, with what was changed in its run since."""
    if not isinstance(value, dict):
        return value
    now, then = run.to_record(), run_record(value).to_record()
    changed = {name: getattr(run, name) for name in _ARTIFACTS if getattr(now, name) != getattr(then, name)}
    if now.metadata != then.metadata:
        meta = value.get("meta")
        changed["meta"] = {**meta, **metadata} if isinstance(meta, dict) else metadata
    return {**value, **changed}


def loadable_run_json(run: Run) -> dict[str, Any]:
    """Return a run as JSON that Griptape 1.13 can load, whatever it was read from.

    The result differs from `run_json` only if Griptape could not load that: a string or an artifact of an older release, an
    unknown class, an unknown key. One such run makes Griptape fail to load the whole conversation.
    """
    value = run_json(run)
    parts = value if isinstance(value, dict) else {}
    meta = parts["meta"] if isinstance(parts.get("meta"), dict) else None
    if parts is not value or parts.keys() - _KEYS or parts.get("id", run.id) != run.id:
        meta = {**(meta or {}), KEY: _split(run)[1]}  # Griptape does not interpret `meta`
    artifacts = {name: _loadable(parts.get(name), getattr(run, name), f"{run.id}-{name}") for name in _ARTIFACTS}
    return {"type": "Run", "id": run.id, "meta": meta, **artifacts}


def _loadable(value: Json, kept: Json, id: str) -> dict[str, Json]:
    try:
        return loadable_artifact(value, id)
    except RecursionError:  # nests too deep, and is therefore kept as text
        return loadable_artifact(kept, id)


def _split(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's metadata and the fields that `run_record` kept in it, if it did."""
    if SHOWN_FROM in run.metadata:
        run = replace(run, metadata={name: value for name, value in run.metadata.items() if name != SHOWN_FROM})
    metadata, rest = extras.split(run.metadata, KEY, _REST)
    return (metadata, rest) if not rest or _is_rest(run, metadata, rest) else (run.metadata, {})


def _is_rest(run: Run, metadata: dict[str, Any], rest: dict[str, Any]) -> bool:
    if "run" in rest:
        return len(rest) == 1 and run.input is None and run.output is None and not metadata
    if "text" in rest:
        return len(rest) == 1 and _is_json(rest["text"])
    keys, values = rest.get("keys"), rest.get("values", {})
    if not isinstance(keys, list) or not isinstance(values, dict):
        return False
    known = {*values, *_KEYS}
    return all(isinstance(name, str) and name in known for name in keys)


def _is_json(text: object) -> bool:
    try:
        json.loads(cast("str", text))
    except (TypeError, ValueError, RecursionError):
        return False
    return True
