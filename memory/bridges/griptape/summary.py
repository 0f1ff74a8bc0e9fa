"""A summary memory whose summary is stored, so that it survives a restart."""

from typing import TYPE_CHECKING, cast

from attrs import define, field
from griptape.memory.structure import BaseConversationMemory, Run, SummaryConversationMemory

_SUMMARY, _INDEX, _RUN = "summary", "summary_index", "summary_run"


class _Before(str):
    """The previous summary. Griptape returns this same object if the model failed."""

    __slots__ = ()


class PersistentSummaryConversationMemory(SummaryConversationMemory):
    """Griptape's `SummaryConversationMemory`, with a summary that is stored with each run that changes it.

    Griptape's own class never stores its summary, and counts the summarized runs from the first run in memory. With
    ``max_runs``, or if only the last runs are loaded, the newest runs are then missing from the prompt. This class therefore
    also stores the id of the last summarized run. Its metadata keys are ``summary`` and ``summary_index``, which Griptape's own
    class reads, and ``summary_run``.

    It works with any driver and takes Griptape's arguments.
    """

    if TYPE_CHECKING:
        summary: str | None
        summary_index: int

    # Griptape finds the class by its module, when a Structure is made from its own JSON.
    module_name: str = field(
        default="memory.bridges.griptape", kw_only=True, repr=False, metadata={"serializable": True}
    )

    def try_add_run(self, run: Run) -> None:
        """Add a run, and summarize the oldest runs beyond ``offset`` (or ``max_runs``, if that is less)."""
        self.runs.append(run)
        offset = self.offset if not self.max_runs else min(self.offset, self.max_runs)
        index = max(self.summary_index, len(self.runs) - offset)
        if index > self.summary_index:
            before = _Before(self.summary or "")
            summary = self.summarize_runs(before, self.runs[self.summary_index : index])
            if summary is not before:  # otherwise the model failed and Griptape logged it; the next run retries
                self.summary, self.summary_index = summary, index
                self.meta |= {_SUMMARY: summary, _INDEX: index, _RUN: self.runs[index - 1].id}

    def after_add_run(self) -> None:
        """Remove the oldest runs beyond ``max_runs``, and store."""
        surplus = max(0, len(self.runs) - self.max_runs) if self.max_runs else 0
        del self.runs[:surplus]
        if surplus and self.summary_index:
            self.summary_index = max(0, self.summary_index - surplus)
            self.meta[_INDEX] = self.summary_index
        self.conversation_memory_driver.store(self.runs, self.meta)

    def load_runs(self) -> list[Run]:
        """Load the runs and the summary. The id of the last summarized run shows which runs are summarized."""
        runs = cast(list[Run], BaseConversationMemory.load_runs(self))
        summary, index, last = (self.meta.get(name) for name in (_SUMMARY, _INDEX, _RUN))
        self.summary = summary if isinstance(summary, str) else None
        known = index if isinstance(index, int) and 0 <= index <= len(runs) and self.summary is not None else 0
        if isinstance(last, str) and (known == 0 or runs[known - 1].id != last):
            # Other runs were loaded than before. If the last summarized run is not among them, none is summarized.
            known = max((at for at, run in enumerate(runs, 1) if run.id == last), default=0)
        self.summary_index = known
        return runs


# Not a decorator: a type checker without Griptape's types would take the field above for the only argument.
define(slots=False)(PersistentSummaryConversationMemory)
