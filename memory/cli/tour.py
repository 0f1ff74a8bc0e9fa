"""`memory tour`: the main functions step by step, on a temporary file. The code that is shown is the code that runs."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import memory
from memory import ConflictError, Conversation, Run, Store, where

if TYPE_CHECKING:
    from rich.syntax import Syntax

_Step = Callable[[Store], object]


def add_a_conversation(store: Store) -> object:
    """Add a conversation and its first run in one unit of work: both are written, or neither."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("support-42", metadata={"customer": "ada", "priority": 3}))
        uow.runs.append("support-42", Run(input="Where is my refund?", output="It left on Monday."))
    return store


def append_runs(store: Store) -> object:
    """Append a run, and read the last two. This takes as long in a conversation of a million runs."""
    with store.begin() as uow:
        uow.runs.append("support-42", Run(input="Monday was a holiday.", output="Then it was Tuesday."))
    with store.begin() as uow:
        return [(run.position, run.input, run.output) for run in uow.runs.last("support-42", 2)]


def find_by_metadata(store: Store) -> object:
    """Find conversations by their metadata, newest first."""
    with store.begin() as uow:
        for number in range(100):
            uow.conversations.add(Conversation(f"chat-{number}", metadata={"customer": "grace", "priority": number}))
    with store.begin() as uow:
        found = uow.conversations.find((where("customer") == "grace") & where("priority").in_([1, 5]), limit=10)
        return [conversation.id for conversation in found]


def change_it(store: Store) -> object:
    """Change a conversation that was read: the unit of work notices the change, and writes it at the end of its block."""
    with store.begin() as uow:
        conversation = uow.conversations.get("support-42")
        conversation.metadata["priority"] = 1
    return conversation


def conflict(store: Store) -> object:
    """Two units of work change the same conversation: the second commit raises an error, so no change is lost."""
    mine = store.begin()
    conversation = mine.conversations.get("support-42")
    with store.begin() as theirs:
        theirs.conversations.get("support-42").metadata["owner"] = "grace"
    conversation.metadata["priority"] = 0
    try:
        mine.commit()
    except ConflictError as error:
        return error
    return "no conflict"


STEPS: Final[tuple[_Step, ...]] = (
    add_a_conversation,
    append_runs,
    find_by_metadata,
    change_it,
    conflict,
)


def tour() -> None:
    """Run the steps; show for each its description, code and result."""
    from rich.console import Console

    console = Console(highlight=False)
    with TemporaryDirectory(prefix="memory-tour-") as folder:
        url = f"sqlite:///{Path(folder).as_posix()}/conversations.db"
        console.print("[bold]A store is opened by its URL; the file and its schema are created on first use.[/]")
        console.print(_code('store = memory.connect("sqlite:///conversations.db")'))
        with memory.connect(url) as store:
            for number, step in enumerate(STEPS, 1):
                console.print(f"\n[bold]{number}. {inspect.getdoc(step)}[/]", soft_wrap=True)
                console.print(_code(_body(step)))
                console.print(f"→ {step(store)}", style="green", markup=False, soft_wrap=True)
                sys.stdout.flush()
    console.print(
        "\nThe file is deleted. Start your own: [bold]memory import FILE[/], or five lines of Python as above."
    )


def _code(text: str) -> "Syntax":
    from rich.syntax import Syntax

    return Syntax(text, "python", background_color="default", word_wrap=True)


def _body(step: _Step) -> str:
    """Return the code of a function without its signature and docstring."""
    _, _, body = inspect.getsource(step).split('"""', 2)
    return textwrap.dedent(body.strip("\n"))
