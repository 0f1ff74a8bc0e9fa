"""The formats that conversations can be exported to, and the module that writes each."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from memory.formats.said import Exported

Target: TypeAlias = Literal["memory", "griptape-local", "openai", "langchain", "sharegpt", "markdown", "csv", "parquet"]
"""The names for ``memory export --to``."""


class Written(NamedTuple):
    """A format to export to: what is written, and by which module's ``write(exported)``.

    ``ending`` is that of a file with one conversation, for formats of which a file holds no more.
    """

    description: str
    module: str
    ending: str | None = None


TARGETS: Final[Mapping[str, Written]] = {
    "memory": Written(
        "lines of JSON with everything that a store keeps; `import` restores them exactly", "memory.transfer"
    ),
    "griptape-local": Written(
        "files of Griptape's LocalConversationMemoryDriver, one for each conversation",
        "memory.formats.griptape_local",
        ".json",
    ),
    "openai": Written(
        'lines {"messages": [{"role": ..., "content": ...}]}, as for fine-tuning', "memory.formats.openai"
    ),
    "langchain": Written(
        'lines {"session_id": ..., "messages": [...]} for messages_from_dict', "memory.formats.langchain"
    ),
    "sharegpt": Written('lines {"id": ..., "conversations": [{"from": ..., "value": ...}]}', "memory.formats.sharegpt"),
    "markdown": Written(
        "transcripts, one file for each conversation, with its metadata on top", "memory.formats.markdown", ".md"
    ),
    "csv": Written("a row for each run, for analysis", "memory.formats.rows"),
    "parquet": Written("the same rows; needs pyarrow", "memory.formats.rows"),
}


def writer(target: Target) -> Callable[[Exported], Iterator[str]]:
    """Return the function that yields, in pieces, the text of a conversation."""
    return cast(Callable[[Exported], Iterator[str]], import_module(TARGETS[target].module).write)


def describe_targets() -> str:
    """Return a description of all targets for the help text."""
    width = max(map(len, TARGETS)) + 2
    return "\n".join(f"{name:<{width}}{target.description}" for name, target in TARGETS.items())
