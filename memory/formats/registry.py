"""The supported formats: their sources, their options, and the module that reads each, imported when it is used."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple, TypeAlias, cast

from memory.errors import ConfigurationError
from memory.transfer import DEFAULT_LIMITS, Limits, ParsedConversation, RejectedConversation

Kind: TypeAlias = Literal["json", "sqlite", "folder", "address"]


class Format(NamedTuple):
    """A format that conversations can be imported from, by a module with a function ``read(source)``.

    ``kind`` says what holds it, and how it is recognized: by the module's ``recognizes(value)`` for a JSON value, by its
    ``TABLES`` for a sqlite file. ``needs`` and ``takes`` are its required and optional options; ``extra`` installs the packages
    it imports.
    """

    source: str
    module: str
    kind: Kind = "json"
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def is_file(self) -> bool:
        return self.kind != "address"


NATIVE: Final = "memory"
FORMATS: Final[Mapping[str, Format]] = {
    NATIVE: Format("JSON lines, as `memory export` writes them; plain or gzip", "memory.formats.lines"),
    "griptape-local": Format(
        "files of Griptape's LocalConversationMemoryDriver; the file's name is the conversation's id",
        "memory.formats.griptape_local",
        takes=("id",),
    ),
    "griptape-redis": Format(
        "the hash of Griptape's RedisConversationMemoryDriver, at redis://host:port/0",
        "memory.formats.griptape_redis",
        kind="address",
        needs=("index",),
        extra="redis",
    ),
    "griptape-dynamodb": Format(
        "the table of Griptape's AmazonDynamoDbConversationMemoryDriver, by its name",
        "memory.formats.griptape_dynamodb",
        kind="address",
        needs=("partition_key", "value_attribute"),
        takes=("sort_key", "region", "endpoint"),
        extra="dynamodb",
    ),
    "griptape-cloud": Format(
        "the threads of Griptape Cloud, by its host; set the API key in GT_CLOUD_API_KEY",
        "memory.formats.griptape_cloud",
        kind="address",
        extra="cloud",
    ),
    "deepseek": Format("DeepSeek's data export", "memory.formats.deepseek"),
    "chatgpt": Format("ChatGPT's data export: conversations.json, or the whole zip", "memory.formats.chatgpt"),
    "claude": Format("Claude's data export: conversations.json, or the whole zip", "memory.formats.claude"),
    "gemini": Format(
        "Google Takeout's MyActivity.json of Gemini Apps; each prompt is a conversation", "memory.formats.gemini"
    ),
    "open-webui": Format("Open WebUI's export of chats", "memory.formats.open_webui"),
    "librechat": Format("LibreChat's export of a conversation as JSON", "memory.formats.librechat"),
    "sharegpt": Format(
        'ShareGPT: {"conversations": [{"from": ..., "value": ...}]}; JSON or lines', "memory.formats.sharegpt"
    ),
    "llm": Format("the database of the `llm` command, or `llm logs --json`", "memory.formats.llm"),
    "langchain": Format(
        "LangChain's messages_to_dict or FileChatMessageHistory; JSON or lines", "memory.formats.langchain"
    ),
    "openai": Format(
        "lists of messages with a role, also of Responses, Anthropic, Gemini, AI SDK; JSON or lines",
        "memory.formats.openai",
    ),
    "openai-agents": Format(
        "the sqlite file of the OpenAI Agents SDK's SQLiteSession", "memory.formats.openai_agents", kind="sqlite"
    ),
    "langchain-sqlite": Format(
        "the sqlite file of LangChain's SQLChatMessageHistory", "memory.formats.langchain_sqlite", kind="sqlite"
    ),
    "adk": Format("the sqlite file of ADK's DatabaseSessionService", "memory.formats.adk", kind="sqlite"),
    "strands": Format("the folder of Strands' FileSessionManager", "memory.formats.strands", kind="folder"),
}
"""The formats by the name for ``memory import --from``, in the order in which they are tried on a file of unknown format."""

_ENDING: Final = re.compile(r"(\.json|\.jsonl|\.ndjson|\.zip)?(\.gz)?\Z")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a folder or an address to import from; ``at`` and ``name`` are for what has no time and no id of its own.

    ``path`` is None if there is no file of its own: standard input, or a member of an archive.
    """

    name: str
    at: int
    stream: IO[bytes] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = DEFAULT_LIMITS
    path: Path | None = None

    @property
    def file(self) -> IO[bytes]:
        if self.stream is None:
            raise ConfigurationError(f"{self.name} is not a file")
        return self.stream


def check_options(name: str, options: Mapping[str, str]) -> Format:
    """Return the format with this name, and check its options."""
    if name not in FORMATS:
        raise ConfigurationError(f"there is no format {name!r}: use one of {', '.join(FORMATS)}")
    format_ = FORMATS[name]
    missing = [option for option in format_.needs if option not in options]
    if missing:
        raise ConfigurationError(f"--from {name} needs {' and '.join(map(_flag, missing))}")
    unknown = [option for option in options if option not in (*format_.needs, *format_.takes)]
    if unknown:
        raise ConfigurationError(f"--from {name} does not take {' or '.join(map(_flag, unknown))}")
    return format_


def name_of(file: str) -> str:
    """Return the name of a file without its folder and without the suffixes of the formats.

    >>> name_of("chats/support-42.json"), name_of("chats.jsonl.gz"), name_of("john.doe")
    ('support-42', 'chats', 'john.doe')
    """
    name = Path(file).name
    return _ENDING.sub("", name) or name


def read(name: str, source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a source one by one."""
    format_ = check_options(name, source.options)
    try:
        module = import_module(format_.module)
    except ModuleNotFoundError as error:
        if format_.extra is None:
            raise
        raise ConfigurationError(
            f"--from {name} needs the module {error.name}: pip install 'conversation-memory[{format_.extra}]'"
        ) from error
    return cast(Callable[[Source], Iterator[ParsedConversation | RejectedConversation]], module.read)(source)


def describe() -> str:
    """Return a description of all formats for the help text."""
    width = max(map(len, FORMATS)) + 2
    lines = []
    for name, format_ in FORMATS.items():
        flags = [*map(_flag, format_.needs), *[f"[{_flag(option)}]" for option in format_.takes]]
        lines.append(f"{name:<{width}}{format_.source}")
        if flags:
            lines.append(" " * width + " ".join(flags))
    return "\n".join(lines)


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
