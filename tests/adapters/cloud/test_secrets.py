"""The API key is in no message, repr, log or traceback, also of local variables, wherever somebody has put it."""

import logging
import traceback
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

import pytest
import requests

import memory
from memory import ConfigurationError, PersistenceError, Run, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.testing.base import put, read, run
from tests.adapters.cloud.troubles import appending
from tests.cloud_server import CloudServer, Fault
from tests.cloud_server.faults import always
from tests.cloud_server.serving import KEYS

SECRET = "gt-0123456789abcdef"


def everything(error: BaseException) -> str:
    """What a reporter of errors could send: the traceback with all local variables, and what hangs on each exception."""
    said = list(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        request, response = getattr(one, "request", None), getattr(one, "response", None)
        said += [
            repr(vars(one)),
            repr(one.args),
            repr(request and request.headers),
            repr(response and response.headers),
        ]
        said += [repr(request and request.url)]
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
    return "\n".join(said)


@pytest.mark.parametrize(
    "url",
    [
        f"griptape+https://{SECRET}@host",
        f"griptape+https://{SECRET}:@host",
        f"griptape+https://user:{SECRET}@host",
        f"griptape+https://a/b?c#{SECRET}@host",
        f"griptape+https://{SECRET}\n@host",
        f"griptape+https://host\n{SECRET}",
        f"griptape+https://host:{SECRET}",
        f"griptape+https://host:1:{SECRET}",
        f"griptape+https://host#{SECRET}",
        f"griptape+https://host?{SECRET}",
        f"griptape+https://host?api_key={SECRET}",
        f"griptape+https://host?timeout={SECRET}",
        f"griptape+https://host?prefix_filter={SECRET}",
        f"griptape+{SECRET}://host",
        f"griptape://{SECRET}",
    ],
)
def test_a_url_that_is_refused_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key")
    with pytest.raises(ConfigurationError) as caught:
        memory.connect(url)
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET not in said.replace(repr(url), "")  # pytest's own source lines


@pytest.mark.parametrize("host", [f"https://{SECRET}@host", f"https://user:{SECRET}@host", f"https://host:{SECRET}"])
def test_an_address_with_a_key_says_where_the_key_belongs(host: str) -> None:
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY") as caught:
        GriptapeCloudRepository(host, "key")
    assert SECRET not in str(caught.value)


@pytest.fixture
def store(cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setitem(KEYS, SECRET, "org-a")
    repository = GriptapeCloudRepository(cloud_server.host, SECRET, timeout=2)
    repository._http.sleep = lambda _: None
    with Store(repository) as opened:
        put(opened, "a", None, run())
        yield opened


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="reset"),
        Fault(kind="truncated"),
        Fault(kind="html"),
        Fault(kind="hang", seconds=5),
        *[Fault(kind="status", status=status) for status in (301, 401, 403, 404, 409, 422, 429, 500, 504)],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_failure_shows_the_key(
    store: Store, cloud_server: CloudServer, fault: Fault, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    works: dict[str, Callable[[], object]] = {
        "GET": lambda: read(store, "a"),
        "POST": lambda: put(store, "b", None, Run("x", "y")),
    }
    cloud_server.plan = always(fault)
    with pytest.raises(PersistenceError) as caught:
        works[method]()
    assert SECRET not in everything(caught.value) + caplog.text


def test_a_host_that_hangs_up_while_it_is_sent_to(
    store: Store, cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local variables of http.client hold the headers then."""

    def send(_: HTTPConnection, data: bytes) -> None:
        raise ConnectionResetError(f"after {len(data)} bytes")

    with monkeypatch.context() as patch:
        patch.setattr(HTTPConnection, "send", send)
        with pytest.raises(PersistenceError) as caught:
            store.repository.get("default", "a")
    assert SECRET not in everything(caught.value)
    assert cloud_server.requests


def test_whatever_a_session_raises_is_an_error_of_ours(store: Store, cloud_server: CloudServer) -> None:
    failing = ["GET", "POST"]

    def fail(response: requests.Response, **_: object) -> None:
        if response.request.method in failing:
            raise AttributeError("a mistake of the application's")

    with requests.Session() as session:
        repository = GriptapeCloudRepository(cloud_server.host, SECRET, session=session)
        repository._http.sleep = lambda _: None
        own = Store(repository)
        assert read(own, "a") == read(store, "a")
        session.hooks["response"].append(fail)
        with pytest.raises(memory.StoreUnavailableError):
            read(own, "a")
        failing.remove("GET")
        own.repository.commit("default", appending("2"))  # which is found to be written
    assert [texts[1:] for texts in cloud_server.texts] == [["2"]]


def test_a_key_that_the_service_repeats_is_masked_before_its_words_are_cut(cloud_server: CloudServer) -> None:
    repository = GriptapeCloudRepository(cloud_server.host, SECRET)
    response = requests.Response()
    for length in range(270, 301):
        response._content = b"x" * length + SECRET.encode()
        assert SECRET[:6] not in repository._http._masked_body(response)
    repository.close()


@pytest.mark.parametrize("status", [401, 403, 407])
def test_what_can_never_be_right_is_not_retryable(store: Store, cloud_server: CloudServer, status: int) -> None:
    cloud_server.plan = always(Fault(kind="status", status=status))
    before = len(cloud_server.requests)
    with pytest.raises(ConfigurationError):
        read(store, "a")
    assert len(cloud_server.requests) == before + 1


def test_a_bundle_of_certificates_that_does_not_exist(cloud_server: CloudServer) -> None:
    with requests.Session() as session:
        session.verify, session.trust_env = "/there/is/none.pem", False
        host = cloud_server.host.replace("http:", "https:")
        with pytest.raises(ConfigurationError):
            GriptapeCloudRepository(host, "key", session=session).get("default", "a")
