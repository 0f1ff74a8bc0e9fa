"""Griptape's memory on Griptape Cloud, where a receipt may not have the position of a run."""

from griptape.artifacts import TextArtifact
from griptape.memory.structure import Run as GriptapeRun

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.bridges.griptape import RepositoryConversationMemoryDriver
from memory.testing.base import read, read_runs
from tests.cloud_server import CloudServer, Fault
from tests.cloud_server.faults import in_turn


def griptape_run(text: str) -> GriptapeRun:
    return GriptapeRun(input=TextArtifact(text), output=TextArtifact(text))


def opened(server: CloudServer) -> Store:
    repository = GriptapeCloudRepository(server.host, "key-of-org-a")
    repository._http.sleep = lambda _: None
    return Store(repository)


def test_the_run_of_another_is_not_overwritten_where_a_position_is_not_known(cloud_server: CloudServer) -> None:
    with opened(cloud_server) as ours, opened(cloud_server) as theirs:
        driver, other = [RepositoryConversationMemoryDriver(store=each, conversation_id="a") for each in (ours, theirs)]
        runs = [griptape_run("1")]
        driver.store(runs, {})
        others, _ = other.load()
        read(ours, "a")  # by its count alone it does not see that another run comes before its own
        other.store([*others, griptape_run("theirs")], {})
        runs.append(griptape_run("ours"))
        cloud_server.plan = in_turn([Fault(kind="status", status=503)] * 5, "GET")
        driver.store(runs, {})
        runs[1].output = TextArtifact("corrected")
        driver.store(runs, {})
        answers = [(one.position, one.output["value"]) for one in read_runs(ours, "a")]
        assert answers == [(1, "1"), (2, "theirs"), (3, "corrected")]
