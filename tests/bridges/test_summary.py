"""A summary survives a restart, and counts right with `max_runs`, windows and a model that fails."""

from typing import Any

import pytest
from griptape.artifacts import TextArtifact
from griptape.common import Message, PromptStack
from griptape.memory.structure import Run, SummaryConversationMemory

from memory import Store
from memory.bridges.griptape import PersistentSummaryConversationMemory
from tests.bridges.talking import AnsweringDriver, driver_on, ids, said


class Summarizer(AnsweringDriver):
    """Its summaries count: "summary 1", "summary 2", ..."""

    def try_run(self, prompt_stack: PromptStack) -> Message:
        super().try_run(prompt_stack)
        return Message(f"summary {len(self.prompts)}", role=Message.ASSISTANT_ROLE, usage=Message.Usage())


def summary_on(store: Store, *, last: int | None = None, **options: Any) -> PersistentSummaryConversationMemory:
    options.setdefault("prompt_driver", Summarizer())
    return PersistentSummaryConversationMemory(conversation_memory_driver=driver_on(store, last=last), **options)


def prompted(memory: SummaryConversationMemory) -> list[str]:
    """Return the runs that a prompt holds besides the summary."""
    return [run.id for run in memory.unsummarized_runs()]


def test_a_summary_survives_a_restart(store: Store) -> None:
    memory = summary_on(store, offset=2)
    for number in range(5):
        memory.add_run(said(number))
    again = summary_on(store, offset=2)
    assert (again.summary, again.summary_index, prompted(again)) == ("summary 3", 3, ["r3", "r4"])
    assert [each.to_text() for each in again.to_prompt_stack().messages][1:] == [
        *("question 3", "answer 3"),
        *("question 4", "answer 4"),
    ]
    assert "summary 3" in again.to_prompt_stack().messages[0].to_text()
    again.add_run(said(5))
    assert (again.summary, prompted(summary_on(store, offset=2))) == ("summary 1", ["r4", "r5"])
    assert "summary 3" in again.prompt_driver.prompts[0][0]  # it goes on from the one there was
    assert len(ids(again)) == 6


@pytest.mark.parametrize("max_runs", [1, 2, 3, 10])
def test_max_runs_takes_no_run_out_of_the_prompt_that_is_not_summarized(local_store: Store, max_runs: int) -> None:
    memory = summary_on(local_store, offset=2, max_runs=max_runs)
    for number in range(8):
        memory.add_run(said(number))
        kept = min(2, max_runs, number + 1)
        assert prompted(memory) == [f"r{at}" for at in range(number + 1 - kept, number + 1)]
        summarized = " ".join(text for prompt in memory.prompt_driver.prompts for text in prompt)
        assert all(f"question {at}" in summarized for at in range(number + 1 - kept))
    again = summary_on(local_store, offset=2, max_runs=max_runs)
    assert (prompted(again), again.summary) == (prompted(memory), memory.summary)


def test_a_window_begins_within_what_is_summarized_or_after_it(local_store: Store) -> None:
    memory = summary_on(local_store, offset=3)
    for number in range(8):
        memory.add_run(said(number))
    assert prompted(summary_on(local_store, last=5)) == ["r5", "r6", "r7"]
    assert prompted(summary_on(local_store, last=3)) == ["r5", "r6", "r7"]
    short = summary_on(local_store, last=2, offset=3)
    assert (prompted(short), short.summary) == (["r6", "r7"], "summary 5")
    short.add_run(said(8))
    short.add_run(said(9))
    assert prompted(summary_on(local_store)) == ["r7", "r8", "r9"]


def test_a_model_that_fails_leaves_the_runs_in_the_prompt(local_store: Store) -> None:
    model = Summarizer()
    memory = summary_on(local_store, prompt_driver=model)
    memory.add_run(said(0))
    model.fails = True
    memory.add_run(said(1))
    memory.add_run(said(2))
    assert (memory.summary, prompted(memory)) == (None, ["r0", "r1", "r2"])
    model.fails = False
    memory.add_run(said(3))
    assert (memory.summary, prompted(memory)) == ("summary 1", ["r3"])


def test_the_same_summary_again_is_a_summary(local_store: Store) -> None:
    memory = summary_on(local_store, prompt_driver=AnsweringDriver())
    for _ in range(4):
        memory.add_run(Run(id="same", input=TextArtifact("q"), output=TextArtifact("a")))
    assert memory.summary_index == 3
    assert summary_on(local_store).summary_index == 3


def test_a_summary_that_griptape_wrote_is_continued(local_store: Store) -> None:
    driver_on(local_store).store([said(0), said(1), said(2)], {"summary": "SUM", "summary_index": 2})
    memory = summary_on(local_store)
    assert (memory.summary, prompted(memory)) == ("SUM", ["r2"])
    memory.add_run(said(3))
    theirs = SummaryConversationMemory(conversation_memory_driver=driver_on(local_store), prompt_driver=Summarizer())
    assert (theirs.summary, prompted(theirs)) == ("summary 1", ["r3"])


@pytest.mark.parametrize(
    "meta", [{"summary": 1, "summary_index": "x"}, {"summary": "s", "summary_index": 99}, {"summary_run": 1}]
)
def test_metadata_of_others_does_no_harm(local_store: Store, meta: dict[str, Any]) -> None:
    driver_on(local_store).store([said(0), said(1)], meta)
    memory = summary_on(local_store)
    assert prompted(memory) == ["r0", "r1"]
    memory.add_run(said(2))
    assert prompted(summary_on(local_store)) == ["r2"]
