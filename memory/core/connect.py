"""Open a store by its URL. The module of an adapter is imported when its scheme is used."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, NamedTuple, cast

from memory.core.store import MAX_METADATA_VALUES, Store
from memory.domain.codecs import Codec, codec_for
from memory.domain.entities import M
from memory.domain.values import Default
from memory.errors import ConfigurationError
from memory.port.repository import Repository
from memory.port.urls import normalized


class _Adapter(NamedTuple):
    module: str
    extra: str | None = None


_ADAPTERS: Final = {
    "memory": _Adapter("memory.adapters.in_memory"),
    "sqlite": _Adapter("memory.adapters.sql"),
    "postgresql": _Adapter("memory.adapters.sql", "postgres"),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), _Adapter("memory.adapters.redis", "redis")),
    "dynamodb": _Adapter("memory.adapters.dynamodb", "dynamodb"),
    "griptape": _Adapter("memory.adapters.cloud", "cloud"),
}
ENTRY_POINTS: Final = "memory.adapters"
"""Group of the entry points by which other packages add schemes: named by the scheme, a function from a URL to a `Repository`."""


def open_repository(url: str) -> Repository:
    """Open the repository that a URL names. Errors never quote the URL: any part of a wrong URL may be a password."""
    url = normalized(url)
    scheme = url.split("://", 1)[0].split("+", 1)[0]
    adapter = _ADAPTERS.get(scheme)
    try:
        if adapter is not None:
            return cast(Repository, import_module(adapter.module).open_url(url))
        return _find_opener(scheme)(url)
    except ModuleNotFoundError as error:
        if adapter is None or adapter.extra is None:
            raise
        raise ConfigurationError(
            f"a {scheme}:// store needs the module {error.name}: pip install 'conversation-memory[{adapter.extra}]'"
        ) from error


def _find_opener(scheme: str) -> Callable[[str], Repository]:
    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        return cast(Callable[[str], Repository], entry_point.load())
    raise ConfigurationError(f"no store has the scheme of this URL; there are: {', '.join(sorted(_ADAPTERS))}")


def connect(
    url: str,
    *,
    metadata: type[M] | Codec[M] | None = None,
    namespace: str = "default",
    default: Default | None = None,
    max_metadata_values: int = MAX_METADATA_VALUES,
) -> Store[M]:
    """Open the store that a URL names.

    ==================================  ====================================================================
    ``sqlite:///conversations.db``      a local file, created on first use; ``?synchronous=full`` or ``normal``, ``?mode=ro``,
                                        ``?immutable=1``, ``?journal_mode=delete``
    ``sqlite://``                       sqlite in memory
    ``postgresql+psycopg://host/db``    PostgreSQL; any SQLAlchemy URL of it, or ``postgres://``; ``?pool_size=`` and others: see
                                        docs/stores.md
    ``redis://host``                    Redis with search; ``rediss://`` with TLS; ``valkey://``, ``unix:///socket``,
                                        ``redis+sentinel://host,host/service``; ``?prefix=memory`` and others: `open_url`
    ``dynamodb://table``                Amazon DynamoDB; ``?region=...&endpoint=...``, see docs/dynamodb.md
    ``griptape+https://host``           Griptape Cloud, with the key in ``GT_CLOUD_API_KEY``; or ``griptape+http``
    ``memory://``                       Python objects: the reference, for tests
    ==================================  ====================================================================

    The scheme may be in capitals, and white space at the end of the URL is ignored. Every URL takes ``?timeout=``, the number of
    seconds that one operation may take (default: 30). In the path of a file, write ``%25`` for a percent sign and ``%3F`` for a
    question mark; ``~`` and ``$`` are refused, because they are not expanded. Other packages add schemes by entry points of the
    group ``memory.adapters``.

    Args:
        url: the store's URL.
        metadata: the type of `Conversation.metadata`: a dataclass, a TypedDict, a pydantic model, `Versioned`, or an object with
            ``encode`` and ``decode``. By default it is a dict of JSON values. See docs/typed-metadata.md.
        namespace: the namespace to use in the store.
        default: encodes values that JSON lacks, in metadata, inputs and outputs, as the ``default`` of `json.dumps`. It may be
            `memory.to_json`. What it returns is what is read later. By default such values are refused.
        max_metadata_values: as for `Store`.

    Raises:
        ConfigurationError: the URL or the type of the metadata is invalid, or the store needs an extra that is not installed.
    """
    codec = codec_for(metadata)  # before anything is opened
    return Store(
        open_repository(url), namespace, metadata=codec, default=default, max_metadata_values=max_metadata_values
    )
