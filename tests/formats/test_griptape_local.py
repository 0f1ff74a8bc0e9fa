"""Files of Griptape's local driver, of every release, in and out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memory
from memory import Conversation, Run, Store
from memory.cli import main
from memory.domain.values import check_id
from memory.formats.envelopes import write_envelope
from memory.formats.griptape import KEY, run_json
from memory.formats.griptape_local import id_of, stem_of
from tests.formats.conftest import AT, Importing, import_into, kept
from tests.formats.test_griptape_runs import SAMPLES, garbage, griptape, runs, sample_files, text_of

LATEST = ["local_persist_file", "local_1.10.3_summary", "local_summary_memory", "local_duplicate_ids"]


def exported(store: Store, id: str) -> str:
    conversation, found = kept(store, id)
    return "".join(write_envelope(conversation.metadata, found))


@pytest.mark.parametrize("file", sample_files(), ids=lambda file: file.stem)
def test_a_file_of_each_release_is_imported_without_loss(importing: Importing, store: Store, file: Path) -> None:
    envelope = json.loads(file.read_text())
    totals, refusals = importing("griptape-local", file.read_bytes(), file.stem)
    assert (totals.conversations, totals.runs, refusals) == (1, len(envelope["runs"]), [])
    conversation, found = kept(store, file.stem)
    assert [run_json(run) for run in found] == envelope["runs"]
    assert [(run.position, run.input) for run in found] == [
        (n, run["input"]) for n, run in enumerate(envelope["runs"], 1)
    ]
    rest = {name: value for name, value in envelope.items() if name not in ("runs", "metadata")}
    assert conversation.metadata == envelope.get("metadata", {}) | ({KEY: {"envelope": rest}} if rest else {})
    assert conversation.record is not None
    assert {conversation.record.created_at, conversation.record.updated_at} == {AT}


@pytest.mark.parametrize("name", LATEST)
def test_what_1_13_wrote_is_exported_byte_for_byte(importing: Importing, store: Store, name: str) -> None:
    content = (SAMPLES / f"{name}.json").read_bytes()
    importing("griptape-local", content, name)
    assert exported(store, name).encode() == content


def test_a_run_with_nan_keeps_its_question_and_goes_out_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = json.loads((SAMPLES / "run.json").read_text())
    output = json.loads((SAMPLES / "artifacts" / "json.json").read_text())
    output["value"] = {"score": float("nan"), "limit": float("inf"), "t": "important answer"}
    run |= {"input": {**run["input"], "value": "important question"}, "output": output}
    Path("nn.json").write_text(json.dumps({"runs": [run], "metadata": {}}))
    assert main(["import", "--from", "griptape-local", "nn.json"]) == 0
    capsys.readouterr()
    assert main(["show", "nn"]) == 0
    shown = capsys.readouterr().out
    assert "important question" in shown
    assert "important answer" in shown
    assert main(["export", "--to", "griptape-local", "back/"]) == 0
    assert Path("back/nn.json").read_bytes() == Path("nn.json").read_bytes()
    (loaded,) = griptape("load", tmp_path / "back" / "nn.json")
    assert loaded["runs"] == [[run["id"], "important question", "JsonArtifact"]]


def test_griptape_loads_what_is_exported_of_every_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [str(file) for file in sample_files()]
    assert main(["import", "--from", "griptape-local", *files]) == 0
    assert main(["export", "--to", "griptape-local", "out/"]) == 0
    files_out = {file.stem: tmp_path / "out" / file.name for file in sample_files()}
    found = dict(zip(files_out, griptape("load", *files_out.values()), strict=True))
    for file in sample_files():
        loaded = found[file.stem]
        before = json.loads(file.read_text())
        assert [run[0] for run in loaded["runs"]] == [run["id"] for run in before["runs"]]
        strings = [run["input"] for run in before["runs"] if isinstance(run["input"], str)]
        assert [run[1] for run in loaded["runs"]][: len(strings)] == strings
    summary = found["local_0.27.2_summary"]["metadata"]
    assert summary == {"summary": "SUM", "summary_index": 1}  # where 1.13 looks for it


def test_griptape_goes_on_where_we_ended_and_we_where_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        uow.conversations.add(Conversation("a/b", metadata={"customer": "ada", KEY: {"mine": True}}))
        uow.runs.append("a/b", Run("Where?", "There.", {"cost": 0.5}, id="r1"))
        uow.runs.append("a/b", Run({"role": "user"}, None, id="r2"))
        uow.conversations.add(Conversation("other"))
    assert main(["export", "--to", "griptape-local", "one.json", "--where", 'customer == "ada"']) == 0
    (loaded,) = griptape("store", tmp_path / "one.json", "more")
    assert loaded["runs"][0] == ["r1", "Where?", "There."]
    assert loaded["metadata"] == {"customer": "ada", KEY: {"mine": True}}
    assert main(["import", "--from", "griptape-local", "one.json", "--store", "sqlite:///second.db"]) == 0
    with memory.connect("sqlite:///second.db") as store:
        conversation, found = kept(store, "one")
    assert [(run.id, run.metadata) for run in found] == [("r1", {"cost": 0.5}), ("r2", {}), ("griptape-more", {})]
    assert conversation.metadata["customer"] == "ada"


def test_one_bad_run_never_fails_the_rest(importing: Importing, store: Store) -> None:
    good = json.loads((SAMPLES / "run.json").read_text())
    bad: list[Any] = [None, 7, [], {}, {**good, "meta": {"cost": float("nan")}}, {**good, "id": "\ud800"}]
    totals, refusals = importing("griptape-local", json.dumps({"runs": [good, *bad, good], "metadata": {}}).encode())
    assert (totals.runs, refusals) == (8, [])
    _, found = kept(store, "file")
    assert [found[0].id, found[-1].id] == [good["id"], good["id"]]
    assert [text_of(run_json(run)) for run in found[1:-1]] == [text_of(run) for run in bad]


def test_metadata_that_no_store_can_keep_is_kept_as_text(importing: Importing, store: Store) -> None:
    text = '{"runs": [], "metadata": {"cost": NaN, "summary": "S"}}'
    importing("griptape-local", text.encode())
    assert kept(store, "file")[0].metadata == {KEY: {"text": '{"metadata": {"cost": NaN, "summary": "S"}}'}}
    assert exported(store, "file") == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "1: not JSON: Expecting value at column 1"),  # what a kill leaves
        (
            b'{"runs": [{"type": "Run", "id": "x", "in',
            "1: not JSON: Unterminated string starting at at column 38",
        ),  # a full disk
        (b"[]", "1: not a conversation of Griptape, which is an object with runs and metadata"),
        (b'{"a": 1}', "1: not a conversation of Griptape, which is an object with runs and metadata"),
        (b'{"runs": {}}', "1: runs must be a list, not dict"),
        (b'"\xff"', "1: not UTF-8: invalid start byte at byte 2"),
        (b"[" * 100_000, "1: it is nested too deeply"),
    ],
)
def test_what_is_no_conversation_is_refused(importing: Importing, content: bytes, reason: str) -> None:
    totals, refusals = importing("griptape-local", content)
    assert (totals.conversations, refusals) == (0, [reason])


def test_the_id_is_the_name_of_the_file_or_the_one_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = (
        "v1.2.json",
        "plain",
        "a%2Fb.json",
        "50%.json",
        "%ff.json",
        "john.doe",
        "john.smith",
        "a.json.json",
        "c.json.gz",
    )
    for name in (*names, ".hidden.json", "%2Eshown.json"):
        Path(name).write_text('{"runs": []}')
        assert main(["import", "--from", "griptape-local", name]) == 0
    assert main(["import", "--from", "griptape-local", "plain", "--id", "mine"]) == 0
    assert main(["import", "--from", "griptape-local", "plain", "50%.json", "--id", "mine"]) == 1
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        found = [conversation.id for conversation in uow.conversations.iterate()]
        assert sorted(found) == sorted(
            ["%ff", "50%", "a/b", "mine", "plain", "v1.2", "john.doe", "john.smith", "a.json", "c", ".hidden", ".shown"]
        )


@given(st.text(min_size=1, max_size=20))
def test_a_file_named_after_an_id_gives_it_back(id: str) -> None:
    stem = stem_of(id)
    assert id_of(stem) == id
    assert "/" not in stem
    assert "\\" not in stem
    assert not stem.startswith(".")
    if id.isascii():
        assert check_id(stem, "the name")


@given(
    st.dictionaries(st.sampled_from(["runs", "metadata", "type", "griptape", "summary"]), st.lists(runs()) | garbage)
    | garbage
)
def test_any_json_is_imported_or_refused_and_goes_out_again(value: Any) -> None:
    with memory.connect("memory://") as store:
        totals, refusals = import_into(store, "griptape-local", json.dumps(value).encode())
        assert totals.conversations + len(refusals) == 1
        if totals.conversations:
            _, found = kept(store, "file")
            assert text_of([run_json(run) for run in found]) == text_of(value.get("runs", []))
            again = json.loads(exported(store, "file"))
            if isinstance(value.get("metadata"), dict):
                assert again["metadata"].items() >= value["metadata"].items()
            assert list(again) == ["runs", "metadata"]
            assert len(again["runs"]) == len(found)


def test_an_export_to_a_file_is_of_one_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        for id in ("a", ".."):
            uow.conversations.add(Conversation(id))
    assert main(["export", "--to", "griptape-local", "out.json"]) == 1
    assert main(["export", "--to", "griptape-local", "out.json", "--where", 'id == "x"']) == 1
    told = capsys.readouterr().err
    assert "several conversations match" in told
    assert "no conversation matches" in told
    assert main(["export", "--to", "griptape-local", "folder/"]) == 0
    assert main(["export", "--to", "griptape-local", "--where", 'id == "a"']) == 0
    assert capsys.readouterr().out == '{"runs": [], "metadata": {}}'
    assert sorted(file.name for file in Path("folder").iterdir()) == ["%2E%2E.json", "a.json"]
    assert not Path("out.json").exists()


def test_an_export_to_a_folder_names_files_that_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        for id in ("a", "y" * 250, "z", "../../evil", ".hidden"):
            uow.conversations.add(Conversation(id))
    assert main(["export", "--to", "griptape-local", "out/"]) == 0
    files = sorted(file.name for file in Path("out").iterdir())
    assert files == ["%2E%2E%2F..%2Fevil.json", "%2Ehidden.json", "a.json", f"{'y' * 250}.json", "z.json"]
    written = [f"out/{file}" for file in files]
    assert main(["import", "--from", "griptape-local", *written, "--store", "sqlite:///second.db"]) == 0
    with memory.connect("sqlite:///second.db") as store, store.begin() as uow:
        found = {conversation.id for conversation in uow.conversations.iterate()}
    assert found == {"a", "y" * 250, "z", "../../evil", ".hidden"}


@pytest.mark.parametrize("id", ["x" * 255, "\u8a9e" * 90])
def test_an_id_that_no_file_can_have_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], id: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        uow.conversations.add(Conversation(id))
    capsys.readouterr()
    assert main(["export", "--to", "griptape-local", "out/"]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert id in told
    assert "File name too long" in told
    assert main(["export", "--to", "griptape-local", "mine.json"]) == 0
