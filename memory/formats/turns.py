"""Group messages into runs of a question and its answers; other messages are kept in the metadata of the run."""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from memory.domain.values import Json

Role: TypeAlias = Literal["question", "answer", "context"]


KEPT: Final = frozenset(["messages", "input", "output", "branches"])
"""What `rest_of` and `memory.formats.builders.build` keep under a format's key in the metadata of a run."""


class Message(NamedTuple):
    """One message: its role, what becomes input or output, the rest, and the whole; and its own id and time, if it has any.

    As a question it is a run's input, as an answer part of its output, as context neither.
    """

    role: Role
    value: Json
    rest: Json
    whole: Json
    id: Json = None
    at: Json = None


def message(role: Role, whole: dict[str, Any], field: str, value: Json, *, id: Json = None, at: Json = None) -> Message:
    """Return a message whose value comes from one of its fields.

    A value that is the field itself is not kept twice: ``field`` is null in the rest. A value
    that was derived from it, such as the text of several parts, stands beside the whole message.
    """
    is_same = whole.get(field) is value and value is not None
    return Message(role, value, {**whole, field: None} if is_same else whole, whole, id, at)


def turns(roles: Sequence[Role]) -> list[range]:
    """Return the range of messages of each run: a run extends from one question to the next.

    Messages before the first question (a system message, for example) belong to the first run, unless there is an answer among
    them.

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


def values_of(turn: Sequence[Message]) -> tuple[Json, Json]:
    """Return the input and the output of a turn. The output is a list if there are several answers, and None if there is none."""
    questions = [message.value for message in turn if message.role == "question"]
    answers = [message.value for message in turn if message.role == "answer"]
    return questions[0] if questions else None, answers[0] if len(answers) == 1 else list(answers) or None


def rest_of(turn: Sequence[Message]) -> dict[str, Json]:
    """Return everything in a turn beyond its input and output, from which the messages can be rebuilt."""
    messages: list[Json] = [message.whole if message.role == "context" else message.rest for message in turn]
    rest: dict[str, Json] = {"messages": messages}
    for index, message in enumerate(turn):
        if message.role == "question":
            rest["input"] = index
    answers: list[Json] = [index for index, message in enumerate(turn) if message.role == "answer"]
    return {**rest, "output": answers} if answers else rest
