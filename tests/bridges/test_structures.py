"""Agents, Pipelines, Workflows and tasks work unchanged, with this driver the default of everything."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from griptape.artifacts import ErrorArtifact
from griptape.configs import Defaults
from griptape.configs.drivers import DriversConfig
from griptape.memory.structure import ConversationMemory, SummaryConversationMemory
from griptape.structures import Agent, Pipeline, Structure, Workflow
from griptape.tasks import PromptTask
from griptape.utils import Conversation as Shown
from griptape.utils import Stream

from memory import ConfigurationError, Store
from memory.bridges.griptape import PersistentSummaryConversationMemory, RepositoryConversationMemoryDriver
from tests.bridges.talking import AnsweringDriver, driver_on, ids, memory_on, said, stored_ids


@pytest.fixture
def model() -> AnsweringDriver:
    return AnsweringDriver()


@pytest.fixture
def defaults(store: Store, model: AnsweringDriver) -> Iterator[Store]:
    """Each memory that is made keeps its runs in this store, and each task asks this model."""
    config = DriversConfig(prompt_driver=model, conversation_memory_driver=driver_on(store))
    before = Defaults.drivers_config
    Defaults.drivers_config = config
    yield store
    Defaults.drivers_config = before


def said_in(structure: Structure) -> list[tuple[str, str]]:
    assert structure.conversation_memory is not None
    return [(run.input.to_text(), run.output.to_text()) for run in structure.conversation_memory.runs]


def test_an_agent_goes_on_where_another_one_was(defaults: Store, model: AnsweringDriver) -> None:
    Agent().run("one")
    agent = Agent()
    agent.run("two")
    assert said_in(agent) == [("one", "answer to one"), ("two", "answer to two")]
    assert model.prompts[-1][-3:] == ["one", "answer to one", "two"]
    assert said_in(Agent()) == said_in(agent)
    assert str(Shown(agent.conversation_memory)).count("answer to") == 2
    assert len(stored_ids(defaults)) == 2


def test_an_agent_that_streams_stores_its_run(defaults: Store) -> None:
    agent = Agent(stream=True)
    assert "".join(str(part) for part in Stream(agent).run("one")).strip()
    assert said_in(Agent()) == [("one", "answer to one")]
    assert len(stored_ids(defaults)) == 1


@pytest.mark.parametrize("per_task", [True, False])
@pytest.mark.parametrize("kind", [Pipeline, Workflow])
def test_a_structure_stores_one_run_or_one_of_each_task(
    defaults: Store, kind: type[Structure], *, per_task: bool
) -> None:
    structure = kind(conversation_memory_strategy="per_task" if per_task else "per_structure")
    structure.add_tasks(*[PromptTask(f"task {number}", id=f"t{number}") for number in range(4)])
    structure.run()
    structure.run()
    assert len(stored_ids(defaults)) == (8 if per_task else 2)
    again = kind()
    again.add_task(PromptTask("more", id="more"))
    assert said_in(again) == said_in(structure)
    again.run()
    assert len(stored_ids(defaults)) == (9 if per_task else 3)


def test_a_workflow_of_many_threads_stores_each_run_once(defaults: Store) -> None:
    workflow = Workflow(conversation_memory_strategy="per_task")
    workflow.add_tasks(*[PromptTask(f"task {number}", id=f"t{number}") for number in range(12)])
    workflow.run()
    assert sorted(said_in(Workflow())) == sorted((f"task {n}", f"answer to task {n}") for n in range(12))
    assert len(set(stored_ids(defaults))) == 12


def test_a_task_without_a_structure_keeps_a_memory_of_its_own(defaults: Store) -> None:
    task = PromptTask("hello", conversation_memory=ConversationMemory())
    task.run()
    task.run()
    assert len(stored_ids(defaults)) == 2
    PromptTask("hello", conversation_memory=ConversationMemory()).run()
    assert len(stored_ids(defaults)) == 3


def test_a_memory_is_optional(defaults: Store) -> None:
    Agent(conversation_memory=None).run("one")
    assert stored_ids(defaults) == []


def test_max_runs_and_a_summary_work_with_the_default_driver(defaults: Store) -> None:
    agent = Agent(conversation_memory=ConversationMemory(max_runs=2))
    for number in range(4):
        agent.run(f"q{number}")
    assert [one for one, _ in said_in(Agent())] == ["q2", "q3"]
    summed = Agent(conversation_memory=SummaryConversationMemory(offset=1))
    summed.run("q4")
    assert summed.conversation_memory.summary is not None
    assert len(stored_ids(defaults)) == 5


def test_a_model_that_fails_leaves_an_error_in_the_conversation_that_can_be_removed(local_store: Store) -> None:
    model = AnsweringDriver(fails=True)
    agent = Agent(prompt_driver=model, conversation_memory=memory_on(local_store))
    agent.run("one")
    assert isinstance(memory_on(local_store).runs[0].output, ErrorArtifact)
    model.fails = False
    agent.conversation_memory.runs.pop()
    agent.run("two")
    assert [(run.input.value, type(run.output).__name__) for run in memory_on(local_store).runs] == [
        ("two", "TextArtifact")
    ]


def test_a_structure_comes_back_from_its_own_json(defaults: Store) -> None:
    agent = Agent()
    agent.run("one")
    again = ConversationMemory.from_dict(agent.conversation_memory.to_dict())
    assert ids(again) == stored_ids(defaults) * 2  # Griptape's: those of the JSON, and those that are loaded
    again.add_run(said("new"))
    assert stored_ids(defaults) == [*ids(agent.conversation_memory), "rnew"]


# the driver's own JSON


@pytest.mark.filterwarnings("ignore:Importing from .griptape.drivers.:DeprecationWarning")  # its own dummies
def test_a_config_comes_back_from_its_own_json_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    driver = RepositoryConversationMemoryDriver(
        store=url, conversation_id="c", last=5, trimmed="deleted", namespace="tenant"
    )
    driver.store([said(1)], {})
    written = json.loads(json.dumps(DriversConfig(conversation_memory_driver=driver).to_dict()))
    again = DriversConfig.from_dict(written).conversation_memory_driver
    assert [run.id for run in again.load()[0]] == ["r1"]
    assert (again.conversation_id, again.last, again.trimmed, again.namespace) == ("c", 5, "deleted", "tenant")
    again.close()
    driver.close()
    monkeypatch.delenv("MEMORY_URL", raising=False)
    with pytest.raises(ConfigurationError, match="MEMORY_URL"):
        RepositoryConversationMemoryDriver.from_dict({"type": "RepositoryConversationMemoryDriver"})


@pytest.mark.needs("redis")
def test_a_password_is_neither_shown_nor_written_and_comes_from_the_environment(
    url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a user without a password takes any
    url = url_of("redis").replace("redis://", "redis://default:se-cret@")
    monkeypatch.setenv("MEMORY_URL", url)
    with RepositoryConversationMemoryDriver(store=url, conversation_id="c") as driver:
        driver.store([said(1)], {})
        written = driver.to_dict()
        assert "se-cret" not in repr(driver) + str(driver) + json.dumps(written)
    with RepositoryConversationMemoryDriver.from_dict(written) as again:
        assert [run.id for run in again.load()[0]] == ["r1"]
    monkeypatch.setenv("MEMORY_URL", "redis://default:other@another.example")
    with pytest.raises(ConfigurationError, match="another store") as raised:
        RepositoryConversationMemoryDriver.from_dict(written)
    assert "se-cret" not in str(raised.value)
    assert "other@" not in str(raised.value)


def test_a_summary_memory_comes_back_from_its_own_json(local_store: Store, model: AnsweringDriver) -> None:
    memory = PersistentSummaryConversationMemory(
        conversation_memory_driver=driver_on(local_store), prompt_driver=model, autoload=False
    )
    with DriversConfig(prompt_driver=model, conversation_memory_driver=driver_on(local_store)):
        again = PersistentSummaryConversationMemory.from_dict(memory.to_dict())
    assert type(again) is PersistentSummaryConversationMemory


def test_importing_the_bridge_is_what_changes_json_and_nothing_else_does() -> None:
    code = (
        "import json, sys; before = json.JSONEncoder.default; import memory, memory.cli, memory.formats.griptape\n"
        "assert 'griptape' not in sys.modules and json.JSONEncoder.default is before\n"
        "import memory.bridges.griptape; assert 'griptape' in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
