"""Artifacts are written as Griptape writes them, read without an import, and come back as they were."""

import json
import math
import sys
from enum import StrEnum
from typing import Any

import pytest
from attrs import define, field
from griptape.artifacts import (
    ActionArtifact,
    AudioArtifact,
    AudioUrlArtifact,
    BaseArtifact,
    BlobArtifact,
    BooleanArtifact,
    ErrorArtifact,
    GenericArtifact,
    ImageArtifact,
    ImageUrlArtifact,
    InfoArtifact,
    JsonArtifact,
    ListArtifact,
    ModelArtifact,
    TextArtifact,
    UrlArtifact,
    VideoUrlArtifact,
)
from griptape.common import PromptStack, Reference, ToolAction
from griptape.memory.structure import Run
from pydantic import BaseModel

from memory import Conversation, Store
from memory import Run as OurRun
from memory.bridges.griptape import RawArtifact
from memory.bridges.griptape.artifacts import to_json
from memory.bridges.griptape.codec import Codec
from tests.bridges.talking import memory_on, said


class Point(BaseModel):
    x: int
    label: str | None = None


class Tone(StrEnum):
    KIND = "kind"


@define
class MoodArtifact(BaseArtifact):
    value: str = field(metadata={"serializable": True})
    scores: dict[str, float] = field(factory=dict, kw_only=True, metadata={"serializable": True})

    def to_text(self) -> str:
        return self.value


ARTIFACTS = [
    TextArtifact("Hello"),
    TextArtifact("h\u00e9llo \U0001f389 \x00 nul", name="n", meta={"k": 1, "nested": {"a": [1, None, True]}}),
    TextArtifact("x", reference=Reference(title="t", authors=["A", "B"], year="2024")),
    ErrorArtifact("boom", exception=ValueError("boom")),
    InfoArtifact("i"),
    JsonArtifact({"a": [1, 2.5, None, True, "s"], "b": {"c": "d"}}),
    JsonArtifact([1, 2]),
    BlobArtifact(b"\x00\xff\x10", name="f.bin"),
    UrlArtifact("https://e.x"),
    ImageUrlArtifact("https://e.x"),
    AudioUrlArtifact("https://e.x"),
    VideoUrlArtifact("https://e.x"),
    BooleanArtifact(value=True),
    BooleanArtifact(value=False),
    ImageArtifact(b"png", format="png", width=1, height=2),
    AudioArtifact(b"wav", format="wav"),
    ActionArtifact(ToolAction(tag="t1", name="Calc", path="calculate", input={"values": {"expression": "1+1"}})),
    GenericArtifact({"a": 1}),
    GenericArtifact("text"),
    ModelArtifact(Point(x=1)),
    ListArtifact([TextArtifact("a"), ErrorArtifact("b"), ListArtifact([InfoArtifact("c")])], item_separator=";"),
    ListArtifact(),
]


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=[f"{type(each).__name__}-{n}" for n, each in enumerate(ARTIFACTS)])
def test_an_artifact_is_written_as_griptape_writes_it_and_comes_back(artifact: BaseArtifact) -> None:
    written = json.dumps(to_json(artifact))
    assert written == json.dumps(artifact.to_dict())
    again = Codec().artifact(json.loads(written))
    assert type(again) is type(artifact)
    assert json.dumps(to_json(again)) == written
    assert json.dumps(BaseArtifact.from_dict(json.loads(written)).to_dict()) == written  # Griptape's own agrees


@pytest.mark.parametrize("value", ["abc", "[1]", True, None, 1, [["a", 1]]])
def test_scalars_that_griptape_breaks_are_kept(value: Any) -> None:
    artifact = Codec().artifact(to_json(JsonArtifact(json.dumps(value))))
    assert isinstance(artifact, JsonArtifact)
    assert artifact.value == value
    assert type(artifact.value) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        {
            "type": "MoodArtifact",
            "value": "glad",
            "scores": {"joy": 1.0},
            "module_name": "a_module_that_tells_of_itself",
        },
        {"type": "ImageArtifact", "value": "%%%", "format": "png", "width": 1, "height": 1},
        {"type": "ImageArtifact", "id": "1", "value": "AA=="},
        {"type": "TextArtifact", "id": "1", "value": ["no", "text"]},
        {"type": "ListArtifact", "id": "1", "value": "abc", "validate_uniform_types": 1},
        {"type": "BaseArtifact", "value": 1},
        {"type": ["TextArtifact"], "value": 1},
        {"role": "user"},
        {},
        None,
        7,
        ["a"],
    ],
)
def test_what_cannot_be_read_as_its_kind_is_kept_as_it_is(value: Any, local_store: Store) -> None:
    artifact = Codec().artifact(value)
    assert isinstance(artifact, RawArtifact)
    assert json.dumps(to_json(artifact)) == json.dumps(value)
    assert "a_module_that_tells_of_itself" not in sys.modules
    PromptStack().add_user_message(artifact)
    with local_store.begin() as uow:
        uow.conversations.add(Conversation("c"))
        uow.runs.append("c", OurRun(value, value, id="odd"))
    memory = memory_on(local_store)
    memory.runs[0].meta = {"edited": True}
    memory.add_run(said(1))
    with local_store.begin() as uow:
        assert json.dumps([uow.runs.get("c", 1).input, uow.runs.get("c", 1).output]) == json.dumps([value, value])
        assert uow.runs.get("c", 1).metadata["edited"] is True
    assert len(memory_on(local_store).runs) == 2


def test_an_artifact_class_of_ones_own_is_read_if_it_was_given(local_store: Store) -> None:
    memory = memory_on(local_store)
    memory.add_run(Run(input=TextArtifact("How?"), output=MoodArtifact("glad", scores={"joy": 1.0})))
    assert isinstance(memory_on(local_store).runs[0].output, RawArtifact)
    assert memory_on(local_store).runs[0].output.to_text() == "glad"
    mood = memory_on(local_store, artifacts=[MoodArtifact]).runs[0].output
    assert (type(mood), mood.value, mood.scores) == (MoodArtifact, "glad", {"joy": 1.0})


def test_values_of_subclasses_are_stored_as_what_they_are() -> None:
    assert to_json({"tone": Tone.KIND, "at": (1, 2), True: b"\xff"}) == {"tone": "kind", "at": [1, 2], "true": "/w=="}
    assert type(to_json(Tone.KIND)) is str


def test_griptape_reads_a_raw_artifact_that_it_has_serialized_itself() -> None:
    run = Run(input=RawArtifact({"role": "user"}), output=TextArtifact("x"))
    assert Run.from_dict(run.to_dict()).input.value == {"role": "user"}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_an_artifact_with_a_number_that_is_no_json_is_kept_as_its_text_with_a_warning_and_comes_back(
    odd: float, local_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    memory = memory_on(local_store)
    output = JsonArtifact({"score": odd, "t": "important answer"})
    memory.add_run(Run(id="r1", input=TextArtifact("important question"), output=output, meta={"user": "ada"}))
    assert "no store can keep Griptape's run 'r1' exactly" in caplog.text
    caplog.clear()
    with local_store.begin() as uow:
        (stored,) = uow.runs.list("c")
    assert (stored.id, stored.metadata["user"]) == ("r1", "ada")
    assert (stored.input["value"], stored.output) == ("important question", json.dumps(to_json(output)))
    again = memory_on(local_store)
    again.add_run(said(2))
    again.runs[0].meta = {"user": "bob"}
    again.add_run(said(3))
    runs = memory_on(local_store).runs
    assert [run.id for run in runs] == ["r1", "r2", "r3"]
    assert (runs[0].input.value, runs[0].meta) == ("important question", {"user": "bob"})
    assert isinstance(runs[0].output, JsonArtifact)
    assert json.dumps(to_json(runs[0].output)) == json.dumps(to_json(output))


def test_a_meta_that_no_store_can_keep_is_kept_with_a_warning(
    local_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    memory_on(local_store).add_run(said(1, meta={"cost": math.inf, "user": "ada"}))
    assert "no store can keep Griptape's run 'r1' exactly" in caplog.text
    (run,) = memory_on(local_store).runs
    assert (run.id, run.input.value, run.meta) == ("r1", "question 1", {"cost": math.inf, "user": "ada"})
