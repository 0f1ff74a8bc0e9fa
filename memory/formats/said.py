"""What was said in a run, as messages for other programs: text where there is text, else JSON."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from memory.domain.entities import Conversation, Run
from memory.domain.values import Json, compact
from memory.formats import extras
from memory.formats.artifacts import text_of
from memory.formats.turns import KEPT

Fill = Callable[[dict[str, Any], Json], Json]
"""Returns a message that was kept at the import, with the value that its run has now."""


class Exported(NamedTuple):
    """A conversation to write, with its runs, which can be iterated once."""

    conversation: Conversation
    runs: Iterable[Run]


def text(value: Json) -> str:
    """Return the text of a value: what was said, or JSON if it is anything but text.

    >>> text("Hello"), text({"type": "TextArtifact", "id": "1", "value": "Hello"}), text({"n": 1})
    ('Hello', 'Hello', '{"n":1}')
    """
    found = text_of(value)
    found = compact(value) if found is None else found
    return found.encode("utf-8", "backslashreplace").decode()


def answers_of(run: Run) -> list[Json]:
    """Return the answers of a run: a list of texts is several of them."""
    if run.output is None:
        return []
    is_several = isinstance(run.output, list) and all(isinstance(each, str) for each in run.output)
    return run.output if is_several else [run.output]


def messages_of(
    run: Run, key: str, fill: Fill, question: Callable[[str], Json], answer: Callable[[str], Json]
) -> Iterator[Json]:
    """Yield the messages of a run: those that were kept under a format's key when it was imported, else a question and answers.

    A message that became an input or an output is filled with the value that the run has now.
    """
    _, rest = extras.split(run.metadata, key, KEPT)
    kept, places = rest.get("messages"), rest.get("output", [])
    answers = [run.output] if len(places) == 1 else run.output if isinstance(run.output, list) else []
    if isinstance(kept, list) and len(answers) == len(places):
        values = dict(zip(places, answers, strict=True))
        values |= {rest["input"]: run.input} if "input" in rest else {}
        for index, message in enumerate(kept):
            yield fill(message, values[index]) if index in values else message
        return
    if run.input is not None:
        yield question(text(run.input))
    for each in answers_of(run):
        yield answer(text(each))


def write_line(
    found: Exported, head: dict[str, Json], name: str, messages: Callable[[Run], Iterator[Json]]
) -> Iterator[str]:
    """Yield, in pieces, a line of JSON: an object with a list of messages under this name."""
    yield f"{json.dumps(head)[:-1]}{', ' if head else ''}{json.dumps(name)}: ["
    comma = ""
    for run in found.runs:
        for message in messages(run):
            yield comma + json.dumps(message)
            comma = ", "
    yield "]}\n"
