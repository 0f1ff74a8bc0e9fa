"""Griptape's runs, as the JSON of every release, and ours: one becomes the other and comes back as it was.

Nothing of griptape is imported here, and no module that data names: Griptape's own ``from_dict`` would do that.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from memory.domain import Run
from memory.errors import InvalidValueError
from memory.formats import aside
from memory.formats.artifacts import artifact_of, is_artifact, loadable_artifact
from memory.values import Json, first_id, new_id

KEY: Final = "griptape"
"""The key in the metadata of runs and conversations that holds what Griptape kept and neither of them has a place for."""

SHOWN_FROM: Final = "griptape:shown_from"
"""The key in a run's metadata by which `memory.bridges.griptape` hides those before it; Griptape itself is not to see it."""

_WRITTEN: Final = ("type", "id", "meta", "input", "output")  # the keys of a run, as Griptape 1.13 writes them
_ARTIFACTS: Final = ("input", "output")
_REST: Final = frozenset(["keys", "values", "run", "text"])


def run_record(value: Json, created_at: datetime | None = None) -> Run:
    """Return the run that a value of Griptape's is; every JSON value is one, and `run_json` gives it back.

    Input and output are the artifacts' JSON as it is. The id and ``meta`` become the run's where they can be; what else
    there is, is kept under ``griptape`` in the run's metadata: ``keys`` it had, and ``values`` of those that the run has no place
    for. A value that is no object is kept as ``run``, one that no store can keep (NaN in it, say) as ``text``.

    Args:
        value: what ``json.loads`` made of a run.
        created_at: when it was made, which Griptape does not write; now, when left out.

    >>> run = run_record({"type": "Run", "id": "r1", "meta": {"user": "ada"}, "input": "Hi", "output": "Hello"})
    >>> run.id, run.input, run.metadata["user"]
    ('r1', 'Hi', 'ada')
    """
    created_at = datetime.now(UTC) if created_at is None else created_at
    run = _read(value, created_at)
    try:
        run.to_record()
    except InvalidValueError:
        return Run(None, None, {KEY: {"text": json.dumps(value)}}, created_at=created_at)
    return run


def _read(value: Json, created_at: datetime) -> Run:
    if not isinstance(value, dict):
        return Run(None, None, {KEY: {"run": value}}, created_at=created_at)
    meta = value.get("meta")
    metadata = meta if isinstance(meta, dict) else {}
    run = Run(value.get("input"), value.get("output"), metadata, first_id(value.get("id")) or new_id(), created_at)
    plain = _plain(run)
    values = {name: part for name, part in value.items() if name not in plain or not _is_same(part, plain[name])}
    if tuple(value) == _WRITTEN and not values and is_artifact(run.input) and is_artifact(run.output):
        rest: dict[str, Json] = {}
    else:
        rest = {"keys": list[Json](value), **({"values": values} if values else {})}
    return Run(run.input, run.output, aside.join(metadata, KEY, rest), run.id, created_at)


def _plain(run: Run) -> dict[str, Any]:
    return {"type": "Run", "id": run.id, "meta": run.metadata or None, "input": run.input, "output": run.output}


def _is_same(one: Json, other: Json) -> bool:
    return one is other or (isinstance(one, str) and isinstance(other, str) and one == other)


def run_json(run: Run) -> Any:
    """Return a run as Griptape's JSON: exactly what `run_record` read; of a run of ours, what Griptape 1.13 loads.

    A string of ours is a TextArtifact, whose id is made of the run's: it is the same every time. What was changed since it was
    read (input, output, metadata) is as it is now.

    >>> run_json(Run("Hi", "Hello", id="r1"))["input"]
    {'type': 'TextArtifact', 'id': 'r1-input', 'reference': None, 'meta': {}, 'name': 'r1-input', 'value': 'Hi'}
    """
    metadata, rest = _split(run)
    if "text" in rest:
        return json.loads(rest["text"])
    if "run" in rest:
        return rest["run"]
    plain = _plain(replace(run, metadata=metadata))
    if not rest:
        return {**plain, **{name: artifact_of(plain[name], f"{run.id}-{name}") for name in _ARTIFACTS}}
    parts = {**plain, **rest.get("values", {})}
    if metadata:
        parts["meta"] = metadata
    added = [name for name in ("meta", *_ARTIFACTS) if name not in rest["keys"] and plain[name] is not None]
    return {name: parts[name] for name in [*rest["keys"], *added]}


def loadable_run_json(run: Run) -> dict[str, Any]:
    """Return a run as JSON that Griptape 1.13 loads, whatever it was read from.

    It differs from `run_json` where that would not load: a string or an artifact of an older release, a class that Griptape
    does not have, a key it does not know. Griptape fails the whole conversation for one such run.
    """
    metadata, rest = _split(run)
    if rest.keys() & {"text", "run"} or rest.get("values", {}).keys() - {"meta", "type"}:
        metadata = {**metadata, KEY: rest}  # Griptape looks at nothing inside of `meta`
    is_empty = not metadata and rest.get("values", {}).get("meta") == {}
    return {
        "type": "Run",
        "id": run.id,
        "meta": {} if is_empty else metadata or None,
        "input": loadable_artifact(run.input, f"{run.id}-input"),
        "output": loadable_artifact(run.output, f"{run.id}-output"),
    }


def _split(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's metadata and what was kept aside, if that is what `run_record` wrote."""
    if SHOWN_FROM in run.metadata:
        run = replace(run, metadata={name: value for name, value in run.metadata.items() if name != SHOWN_FROM})
    metadata, rest = aside.split(run.metadata, KEY, _REST)
    return (metadata, rest) if not rest or _is_rest(run, metadata, rest) else (run.metadata, {})


def _is_rest(run: Run, metadata: dict[str, Any], rest: dict[str, Any]) -> bool:
    if rest.keys() & {"text", "run"}:
        is_whole = len(rest) == 1 and run.input is None and run.output is None and not metadata
        return is_whole and ("run" in rest or _is_json(rest["text"]))
    keys, values = rest.get("keys"), rest.get("values", {})
    if not isinstance(keys, list) or not isinstance(values, dict):
        return False
    return all(isinstance(name, str) and (name in values or name in _WRITTEN) for name in keys)


def _is_json(text: object) -> bool:
    try:
        json.loads(cast("str", text))
    except (TypeError, ValueError, RecursionError):
        return False
    return True
