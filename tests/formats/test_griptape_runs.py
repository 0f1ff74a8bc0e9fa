"""A run of any release of Griptape becomes one of ours, and comes back as it was."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memory import Run
from memory.formats.artifacts import CLASSES
from memory.formats.griptape import KEY, is_kept_as_text, loadable_run_json, run_json, run_record

SAMPLES = Path(__file__).with_name("samples")
PROGRAM = Path(__file__).with_name("griptape_local.py")

RUN = json.loads((SAMPLES / "run.json").read_text())

ARTIFACTS = [json.loads(file.read_text()) for file in sorted((SAMPLES / "artifacts").glob("*.json"))]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5)
keys = st.sampled_from(
    ["type", "id", "meta", "input", "output", "value", "griptape", "keys", "values", "run", "text", "module_name"]
)
garbage = st.recursive(
    scalars | st.sampled_from(["Run", "TextArtifact", "JsonArtifact", "ListArtifact", "os"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
beyond = st.floats() | st.just(json.loads("[" * 98 + "]" * 98)) | st.just(json.loads("[" * 120 + "]" * 120))
unkept = st.recursive(
    beyond, lambda inner: st.lists(inner | scalars, max_size=2) | st.dictionaries(keys, inner | scalars, max_size=3)
)
artifacts = st.sampled_from(ARTIFACTS) | st.builds(
    lambda artifact, more: {**artifact, **more}, st.sampled_from(ARTIFACTS), st.dictionaries(keys, garbage, max_size=2)
)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    odd = garbage | unkept
    parts = {
        "type": st.just("Run") | odd,
        "id": st.text(max_size=3) | odd,
        "meta": st.none() | st.dictionaries(keys, odd, max_size=3) | odd,
        "input": artifacts | odd,
        "output": artifacts | odd,
        "extra": odd,
    }
    names = draw(st.permutations(list(parts)).map(lambda order: order[: draw(st.integers(0, len(order)))]))
    names = ["type", "id", "meta", "input", "output"] if draw(st.booleans()) else names
    return {name: draw(parts[name]) for name in names}


def text_of(value: object) -> str:
    return json.dumps(value)  # tells 1 from 1.0 and True, and keys in another order


def stored(run: Run) -> Run:
    """What a store gives back."""
    return Run.from_record("42", run.to_record())


def sample_files() -> list[Path]:
    return sorted(SAMPLES.glob("local*.json"))


def sample_runs() -> list[Any]:
    files = [*sample_files(), SAMPLES / "redis_hash_value.json"]
    found = [run for file in files for run in json.loads(file.read_text())["runs"]]
    return [RUN, json.loads((SAMPLES / "run_list_meta.json").read_text()), *found]


def test_a_run_of_each_release_comes_back_as_it_was() -> None:
    for value in sample_runs():
        run = stored(run_record(value))
        assert (run.id, run.input, run.output) == (value["id"], value["input"], value["output"])
        assert text_of(run_json(run)) == text_of(value)
        meta = value.get("meta") or {}
        assert {**run.metadata, **meta} == run.metadata
        assert (KEY in run.metadata) == ("meta" not in value)  # nothing is put beside what 1.13 writes


@given(runs() | garbage | unkept)
def test_any_json_is_a_run_and_comes_back_as_it_was(value: Any) -> None:
    assert text_of(run_json(stored(run_record(value)))) == text_of(value)


@example({**RUN, "input": {"type": "JsonArtifact", "id": "x", "value": [None], "module_name": "os"}})
@given(runs() | garbage)
def test_whatever_it_was_there_is_a_run_for_griptape_with_nothing_it_would_import(value: Any) -> None:
    written = loadable_run_json(stored(run_record(value)))
    assert list(written) == ["type", "id", "meta", "input", "output"]
    assert isinstance(written["id"], str)
    artifacts = [written["input"], written["output"]]
    for artifact in artifacts:
        assert artifact["type"] in CLASSES
        assert "module_name" not in artifact
        if artifact["type"] == "ListArtifact":
            artifacts += artifact["value"]


@given(garbage, garbage, st.dictionaries(keys, garbage, max_size=3))
def test_whatever_metadata_a_run_of_ours_has_is_its_meta(one: Any, other: Any, metadata: dict[str, Any]) -> None:
    run = Run(one, other, {**metadata, "mine": {}}, id="r1")
    if KEY not in metadata:
        assert run_json(run)["meta"] == run.metadata
    assert loadable_run_json(run)["id"] == "r1"


def test_what_no_store_can_keep_is_kept_as_text() -> None:
    deep: Any = {"type": "TextArtifact"}
    for _ in range(120):
        deep = {"value": deep}
    for value in ({**RUN, "meta": {"cost": float("inf")}}, {**RUN, "input": deep}, float("-inf"), {**RUN, "x": deep}):
        run = stored(run_record(value))
        assert run.metadata.keys() == {KEY}
        assert run_json(run) == value


NAN: Any = {"type": "JsonArtifact", "id": "o", "value": {"score": float("nan"), "t": "important answer"}}


def test_what_a_store_can_keep_of_a_run_that_is_kept_as_text() -> None:
    run = stored(run_record({**RUN, "meta": {"user": "ada"}, "output": NAN}))
    assert (run.id, run.input, run.output) == (RUN["id"], RUN["input"], json.dumps(NAN))
    assert run.metadata["user"] == "ada"
    assert is_kept_as_text(run)
    value = {**RUN, "meta": {"cost": float("inf"), "user": "ada"}}
    run = stored(run_record(value))
    assert (run.id, run.input, run.output) == (RUN["id"], RUN["input"], RUN["output"])
    assert run.metadata["user"] == "ada"
    assert text_of(loadable_run_json(run)) == text_of(run_json(run)) == text_of(value)


def test_what_took_the_place_of_a_text_since_is_as_it_is_now() -> None:
    old = run_record({**RUN, "meta": {"cost": float("inf"), "user": "ada"}, "input": NAN, "output": NAN})
    changed = Run("42", "Good day", {**old.metadata, "user": "bob"}, old.id)
    assert run_json(changed) == {
        **RUN,
        "meta": {"cost": float("inf"), "user": "bob"},
        "input": "42",
        "output": "Good day",
    }


def test_an_artifact_that_nests_as_deep_as_python_reads_is_written_for_griptape() -> None:
    levels = 400
    nested = '{"type": "ListArtifact", "id": "l", "value": [' * levels + "]}" * levels
    written = loadable_run_json(stored(run_record({**RUN, "output": json.loads(nested)})))
    assert written["output"]["type"] in CLASSES
    assert nested in json.dumps(written) or json.dumps(nested) in json.dumps(written)


@pytest.mark.parametrize("id", [None, "", 5, "a\nb", "x" * 256, "\ud800", ["r1"]])
def test_an_id_that_cannot_be_one_is_kept_aside(id: Any) -> None:
    value = {**RUN, "id": id}
    run = stored(run_record(value))
    assert run.id != id
    assert run_json(run) == value
    assert run_record(value).id != run.id


def test_what_was_changed_since_is_as_it_is_now() -> None:
    old = run_record({"id": "r1", "input": "Hi", "output": "Hello"})
    changed = Run(old.input, "Good day", {**old.metadata, "checked": True}, old.id)
    assert run_json(changed) == {"id": "r1", "input": "Hi", "output": "Good day", "meta": {"checked": True}}
    empty = run_record({**RUN, "meta": {}})
    assert run_json(empty)["meta"] == {}
    assert run_json(Run(empty.input, empty.output, {**empty.metadata, "k": 1}, empty.id))["meta"] == {"k": 1}


def test_a_meta_with_our_own_key_in_it_comes_back() -> None:
    own: Any
    for own in ({"keys": ["id"]}, {"values": {}}, None, {"run": 1}, {"shadowed": {"shadowed": 2}}, "text"):
        value = {**RUN, "meta": {"a": 1, KEY: own, "z": 2}}
        assert text_of(run_json(stored(run_record(value)))) == text_of(value)


def griptape(command: str, *arguments: Path | str) -> list[dict[str, Any]]:
    """Let Griptape's local driver do something; return what it has loaded of each file."""
    done = subprocess.run(
        [sys.executable, PROGRAM, command, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


VALUES: list[Any] = [None, 1, 1.5, True, "abc", "QQ==", [], [None], [1], {}, {"a": None}]
REFERENCES: list[Any] = [{}, {"title": "x"}, {"title": "x", "y": 1}, {"title": "x", "authors": [1]}, 7]
NAMES = ["meta", "name", "width", "format", "item_separator", "validate_uniform_types", "module_name", "encoding"]


def odd_artifacts() -> list[Any]:
    """Artifacts with each key changed or left out, and values that are none."""
    mine = {"type": "Mine", "id": "m", "value": 1}
    odd: list[Any] = [mine, {**mine, "type": "BaseArtifact"}, {**mine, "type": "path", "module_name": "os"}]
    odd += ["text", "", None, True, 7, 1.5, [1, None], {"role": "user", "content": []}, [], {}]
    odd.append({"type": "ListArtifact", "id": "l", "value": [*ARTIFACTS, *odd], "validate_uniform_types": True})
    for artifact in ARTIFACTS:
        odd.append(artifact)
        odd += [{**artifact, "value": value} for value in VALUES]
        odd += [{**artifact, "reference": reference} for reference in REFERENCES]
        odd += [{**artifact, name: part} for name in NAMES for part in (None, 1, "os", True)]
        odd += [{name: part for name, part in artifact.items() if name != left_out} for left_out in artifact]
    return odd


def test_griptape_loads_all_that_is_written_for_it(tmp_path: Path) -> None:
    odd = [{**RUN, "id": f"odd {n}", "output": artifact} for n, artifact in enumerate(odd_artifacts())]
    values = [*sample_runs(), *odd, 7, None, {}, {"id": 5, "x": [1]}]
    ours = [Run(artifact, artifact, {"n": 1}, id=f"ours {n}") for n, artifact in enumerate(odd_artifacts())]
    written = [loadable_run_json(stored(run)) for run in [*map(run_record, values), *ours]]
    file = tmp_path / "conversation.json"
    file.write_text(json.dumps({"runs": written, "metadata": {}}))
    (loaded,) = griptape("load", file)
    assert [run[0] for run in loaded["runs"]] == [run["id"] for run in written]


def test_a_module_that_data_names_is_never_imported_by_us_nor_by_griptape_from_what_we_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Griptape would import it from the file as it was."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass TextArtifact: pass\n")
    named = {"type": "TextArtifact", "id": "x", "value": "x", "module_name": "evil"}
    odd = [named, *[{**artifact, "module_name": "evil", "value": value} for artifact in ARTIFACTS for value in VALUES]]
    odd += [{**artifact, "module_name": "evil", "meta": named, "reference": named} for artifact in ARTIFACTS]
    inputs = [*odd, {**named, "type": "ListArtifact", "value": odd}, [named], {"x": named}]
    values = [{**RUN, "module_name": "evil", "meta": {"a": named}, "input": one} for one in inputs]
    written = [loadable_run_json(stored(run_record(value))) for value in values]
    file = tmp_path / "conversation.json"
    file.write_text(json.dumps({"runs": written, "metadata": {}}))
    assert len(griptape("load", file)[0]["runs"]) == len(values)
    assert not (tmp_path / "imported").exists()
    file.write_text(json.dumps({"runs": values, "metadata": {}}))
    with pytest.raises(AssertionError, match="Unable to load data"):
        griptape("load", file)
    assert (tmp_path / "imported").exists()


def test_what_griptape_wrote_and_can_load_is_written_for_it_as_it_was() -> None:
    for file in ("local_persist_file", "local_1.10.3_summary", "local_summary_memory", "local_duplicate_ids"):
        for value in json.loads((SAMPLES / f"{file}.json").read_text())["runs"]:
            assert text_of(loadable_run_json(stored(run_record(value)))) == text_of(value)
    for artifact in ARTIFACTS:
        value = {**RUN, "meta": {}, "output": artifact}
        assert text_of(loadable_run_json(stored(run_record(value)))) == text_of(value)
