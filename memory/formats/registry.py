"""The formats there are: what each reads, which options it takes, and the module that knows it, imported only then."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple, TypeAlias, cast

from memory.errors import ConfigurationError
from memory.transfer import DEFAULT_LIMITS, Limits, ParsedConversation, RejectedConversation


class Format(NamedTuple):
    """One format that conversations can come from.

    Attributes:
        source: what it reads, in a few words.
        module: has ``read(source)``, which yields an `Arrival` or a `Refusal` for each conversation.
        is_file: whether it is read from a file; else from what an address names.
        needs: the options that have to be given.
        takes: those that can be.
        extra: the extra whose packages it imports.
    """

    source: str
    module: str
    is_file: bool = True
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    extra: str | None = None


NATIVE: Final = "memory"
FORMATS: Final[Mapping[str, Format]] = {
    NATIVE: Format("lines of JSON, as `memory export` writes them; plain or gzip", "memory.formats.lines"),
    "griptape-local": Format(
        "files of Griptape's LocalConversationMemoryDriver; a file's name is the id",
        "memory.formats.griptape_local",
        takes=("id",),
    ),
    "griptape-redis": Format(
        "the hash of Griptape's RedisConversationMemoryDriver in redis://host:port/0",
        "memory.formats.griptape_redis",
        is_file=False,
        needs=("index",),
        extra="redis",
    ),
    "griptape-dynamodb": Format(
        "a table of Griptape's AmazonDynamoDbConversationMemoryDriver, by its name",
        "memory.formats.griptape_dynamodb",
        is_file=False,
        needs=("partition_key", "value_attribute"),
        takes=("sort_key", "region", "endpoint"),
        extra="dynamodb",
    ),
    "griptape-cloud": Format(
        "the threads of Griptape Cloud, by its host; the key is in GT_CLOUD_API_KEY",
        "memory.formats.griptape_cloud",
        is_file=False,
        extra="cloud",
    ),
    "chatgpt": Format("conversations.json of ChatGPT's data export, or the zip it comes in", "memory.formats.chatgpt"),
    "openai": Format(
        'lists of messages [{"role": ..., "content": ...}], alone or as {"messages": [...]}; JSON or JSON lines',
        "memory.formats.openai",
    ),
}
"""By the name that ``memory import --from`` takes. A new format is a module and a line here."""


_ENDING: Final = re.compile(r"(\.json|\.jsonl|\.zip)?(\.gz)?\Z")

Target: TypeAlias = Literal["memory", "griptape-local"]
"""What ``memory export --to`` writes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where conversations come from.

    Attributes:
        name: what the conversations of a file are called after, where they have no ids; else an address.
        at: the time, in microseconds since 1970, of what has none of its own.
        stream: the file's bytes, uncompressed; None where it is no file.
        options: the format's, by name.
        limits: what is refused.
    """

    name: str
    at: int
    stream: IO[bytes] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = DEFAULT_LIMITS

    @property
    def file(self) -> IO[bytes]:
        """The stream, for a format that is read from a file.

        Raises:
            ConfigurationError: there is none.
        """
        if self.stream is None:
            raise ConfigurationError(f"{self.name} is no file")
        return self.stream


def check_options(name: str, options: Mapping[str, str]) -> Format:
    """Return the format of a name, if these options are what it takes.

    Raises:
        ConfigurationError: there is no such format, an option is missing, or one is not for this format.
    """
    if name not in FORMATS:
        raise ConfigurationError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    format_ = FORMATS[name]
    missing = [option for option in format_.needs if option not in options]
    if missing:
        raise ConfigurationError(f"--from {name} needs {' and '.join(map(_flag, missing))}")
    unknown = [option for option in options if option not in (*format_.needs, *format_.takes)]
    if unknown:
        raise ConfigurationError(f"--from {name} does not take {' or '.join(map(_flag, unknown))}")
    return format_


def name_of(file: str) -> str:
    """Return what the conversations of a file are called after: its name, without its folder and the endings of formats.

    >>> name_of("chats/support-42.json"), name_of("chats.jsonl.gz"), name_of("john.doe")
    ('support-42', 'chats', 'john.doe')
    """
    name = Path(file).name
    return _ENDING.sub("", name) or name


def read(name: str, source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield what a source of a format holds, one conversation after the other, as far as the source's limits allow.

    Raises:
        ConfigurationError: the options or the address cannot work, or an extra is not installed.
        PersistenceError: the source could not be read on.
    """
    format_ = check_options(name, source.options)
    try:
        reader = cast(
            Callable[[Source], Iterator[ParsedConversation | RejectedConversation]], import_module(format_.module).read
        )
    except ModuleNotFoundError as error:
        if format_.extra is None:
            raise
        raise ConfigurationError(
            f"--from {name} needs the module {error.name}: pip install 'conversation-memory[{format_.extra}]'"
        ) from error
    return _limited(reader(source), source.limits)


def _limited(
    found: Iterator[ParsedConversation | RejectedConversation], limits: Limits
) -> Iterator[ParsedConversation | RejectedConversation]:
    refused = 0
    for each in found:
        refused += isinstance(each, RejectedConversation)
        if refused > limits.refused:
            what = f"more than {limits.refused:,} hold no conversation: it is not read on from here"
            yield RejectedConversation(each.number, limits.refusal("refused", what))
            return
        yield each


def describe() -> str:
    """Return what there is, a line for each format, for people to read."""
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
