"""Griptape's runs, as the JSON of every release, and ours: one becomes the other and comes back as it was.

Nothing of griptape is imported here, and no module that data names: Griptape's own ``from_dict`` would do that.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from memory.domain.entities import Run
from memory.domain.values import Json, first_id, new_id
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.artifacts import artifact_of, is_artifact, loadable_artifact

KEY: Final = "griptape"
"""The key in the metadata of runs and conversations that holds what Griptape kept and neither of them has a place for."""

SHOWN_FROM: Final = "griptape:shown_from"
"""The key in a run's metadata by which `memory.bridges.griptape` hides those before it; Griptape itself is not to see it."""

_WRITTEN: Final = ("type", "id", "meta", "input", "output")  # the keys of a run, as Griptape 1.13 writes them
_ARTIFACTS: Final = ("input", "output")
_REST: Final = frozenset(["keys", "values", "texts", "run", "text"])


def run_record(value: Json, created_at: datetime | None = None) -> Run:
    """Return the run that a value of Griptape's is; every JSON value is one, and `run_json` gives it back.

    Input and output are the artifacts' JSON as it is. The id and ``meta`` become the run's where they can be; what else
    there is, is kept under ``griptape`` in the run's metadata: ``keys`` it had, and ``values`` of those that the run has no place
    for. A value that is no object is kept as ``run``.

    A part that no store can keep (NaN in it, say) is kept as its JSON text, where it would have stood or among the ``values``,
    and ``texts`` has its name; the parts of a ``meta`` that can be kept are metadata all the same. A value that is no
    object and cannot be kept is ``text``.

    Args:
        value: what ``json.loads`` made of a run.
        created_at: when it was made, which Griptape does not write; now, when left out.

    >>> run = run_record({"type": "Run", "id": "r1", "meta": {"user": "ada"}, "input": "Hi", "output": "Hello"})
    >>> run.id, run.input, run.metadata["user"]
    ('r1', 'Hi', 'ada')
    """
    created_at = datetime.now(UTC) if created_at is None else created_at
    run = _read(value, created_at)
    if _can_be_kept(run):
        return run
    if not isinstance(value, dict):
        return Run(None, None, {KEY: {"text": json.dumps(value)}}, created_at=created_at)
    texts = [name for name, part in value.items() if not _can_be_kept(_read({name: part}, created_at))]
    return _read(value, created_at, texts)


def texts_of(run: Run) -> list[str]:
    """Return the names of the parts that `run_record` kept as their text, because no store can keep them as they are.

    >>> texts_of(run_record({"type": "Run", "id": "r1", "meta": {"cost": float("nan")}, "input": "Hi", "output": "Hello"}))
    ['meta']
    """
    texts = _split(run)[1].get("texts", [])
    return cast("list[str]", texts)


def _can_be_kept(run: Run) -> bool:
    try:
        run.to_record()
    except InvalidValueError:
        return False
    return True


def _read(value: Json, created_at: datetime, texts: Sequence[str] = ()) -> Run:
    """Return the run that a value is, where stores can keep it; the parts that ``texts`` names are kept as their text."""
    if not isinstance(value, dict):
        return Run(None, None, {KEY: {"run": value}}, created_at=created_at)
    meta = value.get("meta")
    metadata = meta if isinstance(meta, dict) else {}
    run = Run(value.get("input"), value.get("output"), metadata, first_id(value.get("id")) or new_id(), created_at)
    plain = _plain(run)
    values = {name: part for name, part in value.items() if name not in plain or not _is_same(part, plain[name])}
    written = {name: json.dumps(value[name]) for name in texts}
    values |= {name: text for name, text in written.items() if name not in _ARTIFACTS}
    if "meta" in written:
        metadata = {
            name: part for name, part in metadata.items() if _can_be_kept(_read({"meta": {name: part}}, created_at))
        }
    is_told = tuple(value) == _WRITTEN and is_artifact(run.input) and is_artifact(run.output)
    rest: dict[str, Json] = {} if is_told and not values and not texts else {"keys": list[Json](value)}
    rest |= {"values": values} if values else {}
    rest |= {"texts": list[Json](texts)} if texts else {}
    given = [written.get(name, part) for name, part in (("input", run.input), ("output", run.output))]
    return Run(given[0], given[1], extras.join(metadata, KEY, rest), run.id, created_at)


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
    parts = _plain(replace(run, metadata=metadata))
    if not rest:
        return {**parts, **{name: artifact_of(parts[name], f"{run.id}-{name}") for name in _ARTIFACTS}}
    added = [name for name in ("meta", *_ARTIFACTS) if name not in rest["keys"] and parts[name] is not None]
    parts = _with_rest(parts, rest)
    return {name: parts[name] for name in [*rest["keys"], *added]}


def _with_rest(plain: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Return a run's parts together with those that were kept aside; what is kept as text is what that says."""
    parts = {**plain, **rest.get("values", {})}
    for name in rest.get("texts", []):
        parts[name] = _parsed(parts[name], name)
    meta, metadata = parts["meta"], plain["meta"]
    if metadata:
        parts["meta"] = {**meta, **metadata} if "meta" in rest.get("texts", []) and isinstance(meta, dict) else metadata
    return parts


def _parsed(text: Any, name: str) -> Any:
    """Return the value that `run_record` made a text of; what stands there now, if that is another."""
    if not isinstance(text, str) or not _is_json(text):
        return text
    value = json.loads(text)
    return text if name in _ARTIFACTS and _can_be_kept(Run(value, None)) else value


def loadable_run_json(run: Run) -> dict[str, Any]:
    """Return a run as JSON that Griptape 1.13 loads, whatever it was read from.

    It differs from `run_json` where that would not load: a string or an artifact of an older release, a class that Griptape
    does not have, a key it does not know. Griptape fails the whole conversation for one such run.
    """
    metadata, rest = _split(run)
    parts = _with_rest(_plain(replace(run, metadata=metadata)), rest)
    meta = parts["meta"] if isinstance(parts["meta"], dict) else None
    if rest.keys() & {"text", "run"} or rest.get("values", {}).keys() - {"meta", "type"}:
        meta = {**(meta or {}), KEY: rest}  # Griptape looks at nothing inside of `meta`
    artifacts = {name: _loadable(parts[name], getattr(run, name), f"{run.id}-{name}") for name in _ARTIFACTS}
    return {"type": "Run", "id": run.id, "meta": meta, **artifacts}


def _loadable(value: Json, kept: Json, id: str) -> dict[str, Json]:
    try:
        return loadable_artifact(value, id)
    except RecursionError:  # it is kept as text because it nests so deep
        return loadable_artifact(kept, id)


def _split(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's metadata and what was kept aside, if that is what `run_record` wrote."""
    if SHOWN_FROM in run.metadata:
        run = replace(run, metadata={name: value for name, value in run.metadata.items() if name != SHOWN_FROM})
    metadata, rest = extras.split(run.metadata, KEY, _REST)
    return (metadata, rest) if not rest or _is_rest(run, metadata, rest) else (run.metadata, {})


def _is_rest(run: Run, metadata: dict[str, Any], rest: dict[str, Any]) -> bool:
    if rest.keys() & {"text", "run"}:
        is_whole = len(rest) == 1 and run.input is None and run.output is None and not metadata
        return is_whole and ("run" in rest or _is_json(rest["text"]))
    keys, values, texts = rest.get("keys"), rest.get("values", {}), rest.get("texts", [])
    if not isinstance(keys, list) or not isinstance(values, dict) or not isinstance(texts, list):
        return False
    known = {*values, *_WRITTEN}
    return all(isinstance(name, str) and name in known for name in [*keys, *texts])


def _is_json(text: object) -> bool:
    try:
        json.loads(cast("str", text))
    except (TypeError, ValueError, RecursionError):
        return False
    return True
