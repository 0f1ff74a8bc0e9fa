"""How far a change set has come, over all attempts of one repository to commit it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from memory.errors import CommitInDoubtError, Step

T = TypeVar("T")


@dataclass(slots=True)
class Steps:
    """What is known to be written, and what is not known.

    Attributes:
        written: the steps that are done, in their order.
        all: what there is to do, of each conversation that was prepared.
        doubtful: the one after them, if it was sent and nobody knows whether it was done.
        removing: the ids of the threads that are to go, of each conversation whose removal was begun: another that is made
            in its place afterwards is not one of them.
    """

    written: dict[Step, None] = field(default_factory=dict)
    all: dict[str, list[Step]] = field(default_factory=dict)
    doubtful: Step | None = None
    removing: dict[str, frozenset[str]] = field(default_factory=dict)

    def do(self, send: Callable[[], T], *steps: Step) -> T:
        """Send what one or several steps write, and keep that they are done before anything else can go wrong."""
        try:
            answer = send()
        except CommitInDoubtError:
            self.doubtful = next(iter(steps), self.doubtful)
            raise
        self.found(*steps)
        return answer

    def found(self, *steps: Step) -> None:
        """Keep that these steps are done. Steps are done in order: one that is new shows what became of a doubtful one."""
        for step in steps:
            if step not in self.written:
                self.written[step] = None
                self.doubtful = None

    def any_of(self, conversation_id: str) -> bool:
        """Tell whether a step of this conversation is done."""
        return any(step.conversation == conversation_id for step in self.written)
