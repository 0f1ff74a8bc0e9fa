"""Griptape 1.13's own driver reads what we wrote, and we read what it wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from memory import Run, Store
from memory.testing.base import put, read, read_runs
from tests.cloud_server import CloudServer

PROGRAM = Path(__file__).with_name("griptape_driver.py")


def griptape(server: CloudServer, alias: str, *command: str) -> dict[str, Any]:
    """Let Griptape's driver do something; return what it has loaded."""
    done = subprocess.run(
        [sys.executable, PROGRAM, server.host, alias, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def artifact(text: str) -> dict[str, object]:
    return {"type": "TextArtifact", "id": "1", "reference": None, "meta": {}, "name": "1", "value": text}


def test_griptape_reads_what_we_wrote_and_goes_on(cloud_server: CloudServer, store: Store) -> None:
    put(store, "shared", {"customer": "ada"}, Run(artifact("one"), artifact("ONE"), {"k": 1}, id="r1"))
    loaded = griptape(cloud_server, "shared", "store", "two")
    assert loaded["runs"] == [["r1", "one", "ONE"]]
    assert loaded["metadata"]["customer"] == "ada"
    runs = read_runs(store, "shared")  # Griptape has replaced every message
    assert [(one.position, one.id, one.input["value"], one.output["value"]) for one in runs] == [
        (1, "r1", "one", "ONE"),
        (2, "griptape-two", "two", "TWO"),
    ]
    found = read(store, "shared")
    assert (found.metadata, found.version, found.run_count, found.last_position) == ({"customer": "ada"}, 1, 2, 2)
    with store.begin() as uow:
        uow.runs.append("shared", Run(artifact("three"), artifact("THREE"), id="r3"))
    assert [run[1] for run in griptape(cloud_server, "shared", "load")["runs"]] == ["one", "two", "three"]
    assert len(cloud_server.service.threads) == 1


def test_we_read_what_griptape_wrote_and_go_on(cloud_server: CloudServer, store: Store) -> None:
    griptape(cloud_server, "theirs", "store", "one", "two")
    runs = read_runs(store, "theirs")
    assert [(one.position, one.id, one.input["type"], one.input["value"], one.output["value"]) for one in runs] == [
        (1, "griptape-one", "TextArtifact", "one", "ONE"),
        (2, "griptape-two", "TextArtifact", "two", "TWO"),
    ]
    with store.begin() as uow:
        uow.conversations.get("theirs").metadata["seen"] = True
        uow.runs.append("theirs", Run(runs[0].input, runs[1].output))
        uow.runs.remove("theirs", 1)
    loaded = griptape(cloud_server, "theirs", "load")
    assert [run[1:] for run in loaded["runs"]] == [["two", "TWO"], ["one", "TWO"]]
    assert loaded["metadata"]["seen"] is True
