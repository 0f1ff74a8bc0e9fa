"""Messages as runs: a question and what answered it; every other message is kept beside the run that it belongs to."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from memory.domain.entities import Run
from memory.domain.values import Json

Role: TypeAlias = Literal["question", "answer", "context"]

REST: Final = frozenset(["messages", "input", "output", "branches"])
"""What there can be under a format's key in a run's metadata."""


class Said(NamedTuple):
    """One message.

    Attributes:
        role: what it is in a run: its input, its output or a part of it, or neither.
        value: what becomes input or output.
        rest: the message without that.
        whole: the message with it.
    """

    role: Role
    value: Json
    rest: Json
    whole: Json


def turns(roles: Sequence[Role]) -> list[range]:
    """Return which messages make one run each: from a question on, to the next one.

    What comes before the first question belongs to it (a system's message, say), unless something is answered there.

    >>> turns(["context", "question", "answer", "question", "question", "context", "answer"])
    [range(0, 3), range(3, 4), range(4, 7)]
    """
    if not roles:
        return []
    starts = [index for index, role in enumerate(roles) if role == "question"]
    if not starts or "answer" in roles[: starts[0]]:
        starts.insert(0, 0)
    starts[0] = 0
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(roles)], strict=True)]


def values_of(turn: Sequence[Said]) -> tuple[Json, Json]:
    """Return the input and the output of a turn: of several answers a list, null where there is none."""
    questions = [said.value for said in turn if said.role == "question"]
    answers = [said.value for said in turn if said.role == "answer"]
    return questions[0] if questions else None, answers[0] if len(answers) == 1 else list(answers) or None


def rest_of(turn: Sequence[Said]) -> dict[str, Json]:
    """Return all that a turn has beyond input and output, in a form that `messages_of` reads."""
    rest: dict[str, Json] = {"messages": [said.whole if said.role == "context" else said.rest for said in turn]}
    for index, said in enumerate(turn):
        if said.role == "question":
            rest["input"] = index
    answers: list[Json] = [index for index, said in enumerate(turn) if said.role == "answer"]
    return {**rest, "output": answers} if answers else rest


def messages_of(run: Run, rest: dict[str, Any], fill: Callable[[Any, Any], Any]) -> Iterator[Any]:
    """Yield the messages that a run was made of.

    Args:
        run: the run.
        rest: what `rest_of` returned.
        fill: puts a value back into the rest of a message.
    """
    answers = rest.get("output", [])
    values = dict(zip(answers, [run.output] if len(answers) == 1 else run.output or [], strict=False))
    if "input" in rest:
        values[rest["input"]] = run.input
    for index, message in enumerate(rest.get("messages", [])):
        yield fill(message, values[index]) if index in values else message
