"""What others write into threads is read as far as it can be, and left alone; our own secrets stay ours."""

import json
import logging
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests

import memory
from memory import (
    ConfigurationError,
    CorruptRecordError,
    PersistenceError,
    Run,
    Store,
    StoreUnavailableError,
    transfer,
    where,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.testing.base import put, read, read_runs, run
from tests.cloud_server import CloudServer, Fault
from tests.cloud_server.faults import always
from tests.cloud_server.serving import CERTIFICATE, KEYS

Connect = Callable[..., GriptapeCloudRepository]
ARTIFACT: dict[str, Any] = {
    "type": "TextArtifact",
    "id": "1",
    "reference": None,
    "meta": {},
    "name": "1",
    "value": "Hello",
}


def do(server: CloudServer, method: str, path: str, body: Any = None) -> Any:
    """Do something to the service as another program would."""
    return server.service.answer("org-a", method, path.split("/"), {}, body)


@pytest.fixture
def theirs(cloud_server: CloudServer) -> str:
    """The id of a thread that others made."""
    messages: list[dict[str, Any]] = [
        {"input": "plain", "output": "text"},
        {"input": json.dumps(ARTIFACT), "output": json.dumps(ARTIFACT), "metadata": {"run_id": "r1", "k": [1]}},
        {"input": "{broken", "output": "[1, 2]", "metadata": {"run_id": 7}},
        {"input": "", "output": "", "metadata": {"run_id": ""}},
        {"input": '{"type": 1}', "output": "null"},
        {"input": '{"type":"x","value":NaN}', "output": "2", "metadata": {"nan": float("nan")}},
    ]
    body = {"name": "anything", "alias": "theirs", "metadata": {"customer": "ada"}, "messages": messages}
    return str(do(cloud_server, "POST", "threads", body)["thread_id"])


@pytest.mark.usefixtures("theirs")
def test_messages_of_others_are_runs(store: Store) -> None:
    runs = read_runs(store, "theirs")
    assert [(one.position, one.input, one.output) for one in runs] == [
        (1, "plain", "text"),
        (2, ARTIFACT, ARTIFACT),
        (3, "{broken", "[1, 2]"),
        (4, "", ""),
        (5, '{"type": 1}', "null"),
        (6, '{"type":"x","value":NaN}', "2"),
    ]
    assert runs[5].metadata == {"nan": "NaN"}
    assert (runs[1].id, runs[1].metadata) == ("r1", {"k": [1]})
    assert len({one.id for one in runs}) == 6
    assert all(one.created_at.year > 2000 for one in runs)


@pytest.mark.usefixtures("theirs")
def test_a_thread_of_others_is_a_conversation(store: Store) -> None:
    found = read(store, "theirs")
    assert (found.metadata, found.version, found.run_count, found.last_position) == ({"customer": "ada"}, 1, 6, 6)
    assert [one.id for one in store.begin().conversations.find(where("customer") == "ada")] == ["theirs"]
    with store.begin() as uow:
        uow.runs.append("theirs", run("ours"))
        uow.runs.remove("theirs", 2)
        uow.conversations.get("theirs").metadata["customer"] = "grace"
    assert [(one.position, one.input) for one in read_runs(store, "theirs")][1:] == [
        (3, "{broken"),
        (4, ""),
        (5, '{"type": 1}'),
        (6, '{"type":"x","value":NaN}'),
        (7, "ours"),
    ]
    found = read(store, "theirs")
    assert (found.metadata, found.version, found.run_count, found.last_position) == ({"customer": "grace"}, 2, 6, 7)


def test_what_others_keep_beside_ours_stays(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", {"n": 1, "gone": 1}, run())
    (thread,) = cloud_server.service.threads.values()
    do(cloud_server, "PATCH", f"threads/{thread.thread_id}", {"metadata": thread.metadata | {"theirs": {"x": 1}}})
    with store.begin() as uow:
        conversation = uow.conversations.get("a")
        assert conversation.metadata == {"n": 1, "gone": 1}
        conversation.metadata = {"n": 2}
    assert {key: value for key, value in thread.metadata.items() if key != "conversation_memory"} == {
        "n": 2,
        "theirs": {"x": 1},
    }
    assert read(store, "a").metadata == {"n": 2}


def test_messages_that_others_delete_move_no_position(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, *[run(n) for n in range(1, 131)])
    (thread,) = cloud_server.service.threads.values()
    for index in (0, 60):
        do(cloud_server, "DELETE", f"messages/{thread.messages[index].message_id}")
    left = [n for n in range(2, 131) if n != 62]
    assert [(one.position, one.input) for one in read_runs(store, "a")] == [(n, n) for n in left]
    uow = store.begin()
    assert uow.runs.get("a", 100).input == 100
    assert uow.runs.get("a", 101).input == 101  # on the first page now
    assert uow.runs.get("a", 130).input == 130  # beyond the number of messages
    assert [one.position for one in uow.runs.last("a", 3)] == [128, 129, 130]
    with pytest.raises(CorruptRecordError, match="128"):  # its last position is too low until a run is removed
        list(transfer.dump(store))
    with store.begin() as uow:
        uow.runs.append("a", run(131))
        uow.runs.remove("a", 130)
    assert [(one.position, one.input) for one in read_runs(store, "a")] == [(n, n) for n in [*left[:-1], 131]]
    assert read(store, "a").last_position == 131
    assert list(transfer.dump(store))


def test_a_message_that_others_changed_is_read_as_it_stands(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, Run({"k": 1}, "out"), Run(1, 2), Run("x", "y"))
    (thread,) = cloud_server.service.threads.values()
    do(cloud_server, "PATCH", f"messages/{thread.messages[0].message_id}", {"input": "edited by hand"})
    do(cloud_server, "PATCH", f"messages/{thread.messages[1].message_id}", {"metadata": {}})
    assert [(one.input, one.output) for one in read_runs(store, "a")] == [
        ("edited by hand", "out"),
        ("1", "2"),
        ("x", "y"),
    ]


def test_a_thread_whose_bookkeeping_is_lost_is_one_of_others(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", {"n": 1}, run(1), run("two"))
    (thread,) = cloud_server.service.threads.values()
    thread.metadata = {"n": 1}
    assert (read(store, "a").metadata, read(store, "a").version, read(store, "a").run_count) == ({"n": 1}, 1, 2)
    assert [one.input for one in read_runs(store, "a")] == [1, "two"]
    assert store.begin().conversations.count(where("n") == 1) == 1


def test_an_alias_that_others_spell_otherwise(store: Store, cloud_server: CloudServer) -> None:
    for alias in ("Ada's chat", "50%", "a b/c", "x*", "é"):
        do(cloud_server, "POST", "threads", {"name": "x", "alias": alias})
        assert read(store, alias).id == alias
    found = [one.id for one in store.begin().conversations.find(order="id", limit=100)]
    assert found == sorted(["Ada's chat", "50%", "a b/c", "x*", "é"])
    put(store.namespace("team"), "ada")
    do(cloud_server, "POST", "threads", {"name": "x", "alias": "team/bob"})
    assert [one.id for one in store.namespace("team").begin().conversations.find(order="id")] == ["ada", "bob"]


# secrets and addresses

SECRET = "gt-0123456789abcdef"


def test_the_key_is_nowhere(
    cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GT_CLOUD_API_KEY", SECRET)
    monkeypatch.setitem(KEYS, SECRET, "org-a")
    store = memory.connect(cloud_server.url + "?timeout=2")
    assert isinstance(store.repository, GriptapeCloudRepository)
    store.repository._http.sleep = lambda _: None
    put(store, "a", None, run())
    said = [repr(store), repr(store.repository), repr(store.repository._http)]
    for fault in (Fault(kind="reset"), Fault(kind="status", status=401), Fault(kind="status", status=422)):
        cloud_server.plan = always(fault)
        with pytest.raises(PersistenceError) as caught:
            read(store, "a")
        said += traceback.format_exception(caught.value)
        cause: BaseException | None = caught.value
        while cause is not None:
            said.append(repr(vars(cause)))
            request = getattr(cause, "request", None)
            said.append(repr(request and request.headers))
            cause = cause.__cause__
    store.close()
    assert SECRET not in "\n".join([*said, caplog.text])
    assert cloud_server.requests[-1].headers["Authorization"].endswith(SECRET)


def test_what_the_service_says_of_the_key_is_masked(cloud_server: CloudServer) -> None:
    repository = GriptapeCloudRepository(cloud_server.host, SECRET)

    class Echo:
        text = f'{{"errors": [{{"message": "bad key {SECRET}"}}]}}'

    assert "***" in repository._http._masked_body(Echo)  # type: ignore[arg-type]
    assert SECRET not in repository._http._masked_body(Echo)  # type: ignore[arg-type]
    repository.close()


def test_netrc_does_not_replace_the_key(
    cloud_server: CloudServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    put(store, "a")
    assert cloud_server.requests[-1].headers["Authorization"] == "Bearer key-of-org-a"


def test_a_proxy_of_the_environment_is_used(cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", cloud_server.host)
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    repository = GriptapeCloudRepository("http://cloud.griptape.example", "key-of-org-a")
    assert repository.get("default", "a") is None
    assert cloud_server.requests[-1].path.startswith("http://cloud.griptape.example/api/threads?")
    repository.close()


def test_a_certificate_authority_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # requests prefers them to a session's own
    server = CloudServer(tls=True)
    repository = GriptapeCloudRepository(server.host, "key-of-org-a")
    repository._http.sleep = lambda _: None
    with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
        repository.get("default", "a")
    with requests.Session() as session:
        session.verify = str(CERTIFICATE)
        assert GriptapeCloudRepository(server.host, "key-of-org-a", session=session).get("default", "a") is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    put(Store(repository), "a")
    repository.close()
    server.stop()


def test_a_host_that_does_not_exist_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """But one that the resolver cannot find at the moment is unavailable (P20)."""
    codes = [socket.EAI_AGAIN, socket.EAI_NONAME]

    def resolve(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(codes[0], "told by the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    repository = GriptapeCloudRepository("https://cloud.example", "key")
    repository._http.sleep = lambda _: None
    with pytest.raises(StoreUnavailableError):
        repository.get("default", "a")
    codes.pop(0)
    with pytest.raises(ConfigurationError, match=r"cloud\.example"):
        repository.get("default", "a")
    repository.close()


@pytest.mark.parametrize(
    "url",
    [
        "griptape://host",
        "griptape+ftp://host",
        "griptape+https://",
        f"griptape+https://user:{SECRET}@host",
        f"griptape+https://host?api_key={SECRET}",
        "griptape+https://host?timeout=never",
        "griptape+https://host?timeout=0",
    ],
)
def test_addresses_that_cannot_be(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key")
    with pytest.raises(ConfigurationError) as caught:
        memory.connect(url)
    assert SECRET not in str(caught.value)


def test_a_missing_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GT_CLOUD_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY"):
        memory.connect("griptape+https://cloud.griptape.ai")
    monkeypatch.setenv("GT_CLOUD_API_KEY", "two\nlines")
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY"):
        memory.connect("griptape+https://cloud.griptape.ai")
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key")
    with memory.connect("griptape+https://cloud.griptape.ai/behind/a/gateway/?timeout=5") as store:
        assert repr(store.repository) == "GriptapeCloudRepository('https://cloud.griptape.ai/behind/a/gateway')"


def test_a_partial_commit_error_can_be_sent_elsewhere() -> None:
    error = memory.PartialCommitError("told")
    assert str(pickle.loads(pickle.dumps(error))) == "told"
