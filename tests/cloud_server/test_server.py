"""The test server keeps the contract's OpenAPI document: what the adapter is tested with is not only what we believe."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.testing.base import put, read_runs, run
from tests.adapters.cloud.test_either_way import CONTRARY, OTHER_WAYS
from tests.cloud_server import Assumptions, CloudServer
from tests.cloud_server.contract import DOCUMENT, check

WAYS = [Assumptions(), CONTRARY, *[replace(Assumptions(), **way) for way in OTHER_WAYS]]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer key-of-org-a"
        yield session


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(WAYS.index(way)))
def test_every_answer_is_one_that_the_document_allows(way: Assumptions) -> None:
    server = CloudServer(way)
    server.keeps_answers = True
    repository = GriptapeCloudRepository(server.host, "key-of-org-a")
    store = Store(repository)
    put(store, "a", {"n": 1}, *[run(n) for n in range(12)])
    with store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 2
        uow.runs.remove("a", 3)
        uow.runs.append("a", run("more"))
    read_runs(store, "a")
    store.begin().conversations.find()
    with store.begin() as uow:
        uow.conversations.remove("a")
    repository.close()
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer key-of-org-a"
        for method, path, body in IMPOSSIBLE:
            session.request(method, server.host + path, data=body)
        session.headers.clear()
        session.get(server.host + "/api/threads", headers={"Authorization": "Bearer key-of-org-b"})
        session.get(server.host + "/api/threads")
    server.stop()
    assert len(server.answers) > 20
    for request, status, answer in server.answers:
        if not (status == 413 or (request.path.startswith("/api/threads?page=0") and way.first_page)):
            check(request.method, request.path, status, answer)


IMPOSSIBLE = (
    ("GET", "/api/threads?page=zero", None),
    ("GET", "/api/threads/none", None),
    ("GET", "/api/threads/00000000-0000-4000-8000-000000000000", None),
    ("DELETE", "/api/messages/00000000-0000-4000-8000-000000000000", None),
    ("POST", "/api/threads", "{"),
    ("POST", "/api/threads", "[]"),
    ("POST", "/api/threads", '{"name": ""}'),
    ("POST", "/api/threads", '{"name": "x", "messages": [{"input": 1, "output": ""}]}'),
)


def test_schemathesis_finds_nothing(cloud_server: CloudServer, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", cloud_server.host),
        *("--header", "Authorization: Bearer key-of-org-a", "--max-examples", "15", "--seed", "1", "--no-color"),
        *("--phases", "examples,coverage,fuzzing,stateful"),
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ),
        *("--checks", "negative_data_rejection,use_after_free,ensure_resource_availability,ignored_auth"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_organizations_do_not_see_each_other(cloud_server: CloudServer, session: requests.Session) -> None:
    made = session.post(f"{cloud_server.host}/api/threads", json={"name": "x", "alias": "x"}).json()
    other = {"Authorization": "Bearer key-of-org-b"}
    assert session.get(f"{cloud_server.host}/api/threads", headers=other).json()["threads"] == []
    path = f"{cloud_server.host}/api/threads/{made['thread_id']}"
    assert [session.request(method, path, headers=other).status_code for method in ("GET", "PATCH", "DELETE")] == [
        404
    ] * 3
    assert session.get(path, headers={"Authorization": "Bearer second-key-of-org-a"}).json() == made
