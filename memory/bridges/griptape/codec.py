"""Convert Griptape's runs to ours and back, and recognise runs by their content."""

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import griptape.artifacts as theirs
from griptape.artifacts import BaseArtifact, TextArtifact
from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape.artifacts import RawArtifact, fields_of, to_json
from memory.bridges.griptape.state import KnownRun
from memory.domain.entities import PENDING, Run
from memory.domain.values import Json
from memory.formats.griptape import KEY, is_kept_as_text, run_json, run_record

_log = logging.getLogger("memory")


class Codec:
    """Converts runs between Griptape and a store; stored data may name ``kinds``, the application's artifact classes."""

    def __init__(self, kinds: Iterable[type[BaseArtifact]] = ()) -> None:
        known = [getattr(theirs, name) for name in theirs.__all__ if name != "BaseArtifact"]
        self._kinds = {kind.__name__: kind for kind in (*known, *kinds)}

    def to_ours(self, run: GriptapeRun) -> Run:
        """Return the run to store. A part that no store can keep exactly becomes text, with a warning in the log."""
        ours = run_record(_json(run))
        if is_kept_as_text(ours):
            _log.warning("no store can keep Griptape's run %r exactly: parts of it are stored as text", run.id)
        return ours

    def digest(self, run: GriptapeRun) -> int:
        """Return a digest of the run's JSON, for use in this process only."""
        return hash(json.dumps(_json(run)))

    def known(self, run: Run) -> KnownRun:
        """Return the `KnownRun` of a driver that loads this stored run."""
        loaded = self.to_theirs(run)
        return KnownRun(run.position or 0, loaded.id, self.digest(loaded))

    def to_theirs(self, run: Run) -> GriptapeRun:
        """Return the run for Griptape's memory. It never fails: a value that Griptape does not write becomes a `RawArtifact`."""
        if run.output is PENDING:
            run = replace(run, output="")  # Griptape has no runs without an output
        value = run_json(run)
        if not isinstance(value, dict):
            return GriptapeRun(id=run.id, input=RawArtifact(value), output=TextArtifact(""))
        run_id, meta = value.get("id"), value.get("meta")
        if KEY not in run.metadata:  # no other fields of Griptape: use the stored values, whoever wrote them
            value = {"input": run.input, "output": run.output}
        return GriptapeRun(
            id=run_id if isinstance(run_id, str) else run.id,
            meta=meta if isinstance(meta, dict) else None,
            input=self.artifact(value.get("input")),
            output=self.artifact(value.get("output")),
        )

    def artifact(self, value: Json) -> BaseArtifact:
        """Return the artifact for a JSON value; a plain string becomes a `TextArtifact`."""
        if isinstance(value, str):
            return TextArtifact(value)
        name = value.get("type") if isinstance(value, dict) else None
        kind = self._kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            return RawArtifact(value)
        try:
            return cast(BaseArtifact, self._read(kind, cast("dict[str, Any]", value)))
        except Exception:  # noqa: BLE001  # classes of the application may raise anything; one bad run must not fail `load`
            return RawArtifact(value)

    def _read(self, kind: type, value: dict[str, Any]) -> object:
        given: dict[str, Any] = {}
        for field in fields_of(kind):
            if field.key in value and field.key != "type":
                read = field.read
                given[field.argument] = read(value[field.key]) if read else self._nested(field.holds, value[field.key])
        return kind(**given)

    def _nested(self, holds: type | None, value: Any) -> object:
        """Return the value of a field that holds other objects of Griptape: one of this class, or a list of artifacts."""
        if holds is None:
            return [self.artifact(each) for each in value]
        if value is not None and not isinstance(value, dict):
            raise TypeError(value)
        return None if value is None else self._read(holds, value)


def _json(run: GriptapeRun) -> dict[str, Json]:
    return {
        "type": "Run",
        "id": run.id,
        "meta": None if run.meta is None else _json_or_text(run.meta, run),
        "input": _json_or_text(run.input, run),
        "output": _json_or_text(run.output, run),
    }


def _json_or_text(value: object, run: GriptapeRun) -> Json:
    """Return a value as JSON, or as the JSON of its text if it cannot be converted."""
    try:
        return to_json(value)
    except Exception as error:  # noqa: BLE001  # classes may raise anything; a run that was paid for must be stored
        _log.warning("a part of Griptape's run %r cannot be converted to JSON (%s): stored as text", run.id, error)
    if not isinstance(value, BaseArtifact):
        return {"text": str(value)}
    return to_json(TextArtifact(str(value.value), id=str(value.id), name=str(value.name)))
