"""The driver that keeps Griptape's conversation memory in any store."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import define, field, setters
from attrs.converters import optional
from griptape.artifacts import BaseArtifact
from griptape.drivers.memory.conversation import BaseConversationMemoryDriver
from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape import places
from memory.bridges.griptape.codec import Codec
from memory.bridges.griptape.editing import Trimmed
from memory.bridges.griptape.recorder import Recorder
from memory.core.connect import connect
from memory.core.store import Store
from memory.domain.values import check_id, new_id
from memory.errors import ConfigurationError, InvalidValueError
from memory.port.urls import normalized, redact

if TYPE_CHECKING:
    import boto3
    import redis

URL_VARIABLE: Final = "MEMORY_URL"
"""Environment variable with the store's URL, for drivers that are created from their JSON, which has no password."""

_SECRET: Final = "***"  # noqa: S105  # how `redact` writes a password


@define(kw_only=True, eq=False)
class RepositoryConversationMemoryDriver(BaseConversationMemoryDriver):
    """Conversation memory driver that keeps a conversation of Griptape in a store.

    A turn writes only its own run, however long the conversation is. `load` returns the runs that this driver stored last,
    followed by the runs that others appended since; runs of others are never lost. Both methods raise the errors of
    `memory.errors`. If a `store` fails, the next one writes the missing runs. Use one driver for each memory.

    Args:
        store: a `memory.Store`, which stays open, or the URL of one.
        conversation_id: 1 to 255 characters; a new unique id by default.
        last: load only this many runs, from the end; default: all. `store` does not change older runs either.
        trimmed: what happens to runs beyond ``max_runs``: ``"hidden"`` keeps them in the store but does not load them
            again, ``"deleted"`` deletes them.
        artifacts: artifact classes of the application. Artifacts of unknown classes are loaded as `RawArtifact`.
        namespace: the namespace of the store; that of the given `Store` by default.
        url: used instead of ``store``, as ``to_dict`` writes it: without a password, which is read from ``MEMORY_URL``.
        migrate: migrate the store's schema to the version that this code needs, as ``memory migrate`` does.
        owned: let `close` also close a given `Store`.
        load_legacy: called if the conversation does not exist yet; returns the `Change` that imports it, or None.

    Raises:
        ConfigurationError: no store was given, or its URL is invalid.
        InvalidValueError: the id or another argument is invalid.
        SchemaError: the store's schema is not the version that this code needs.
        StoreUnavailableError: the store cannot be reached. This is raised here, before any model call is paid for.

    >>> import memory
    >>> from griptape.artifacts import TextArtifact
    >>> store = memory.connect("memory://")
    >>> driver = RepositoryConversationMemoryDriver(store=store, conversation_id="support-42")
    >>> driver.store([GriptapeRun(input=TextArtifact("Hi"), output=TextArtifact("Hello"))], {})
    >>> [run.output.to_text() for run in driver.load()[0]]
    ['Hello']
    """

    _given: Store | str | None = field(default=None, alias="store", repr=False)
    conversation_id: str = field(factory=new_id, on_setattr=setters.frozen, metadata={"serializable": True})
    last: int | None = field(default=None, on_setattr=setters.frozen, metadata={"serializable": True})
    trimmed: Trimmed = field(default="hidden", on_setattr=setters.frozen, metadata={"serializable": True})
    artifacts: Sequence[type[BaseArtifact]] = field(default=(), repr=False)
    namespace: str | None = field(default=None, on_setattr=setters.frozen, metadata={"serializable": True})
    url: str | None = field(default=None, converter=optional(redact), metadata={"serializable": True})
    # Griptape finds the class by its module: without this, `DriversConfig.from_dict` would look among its own drivers.
    module_name: str = field(default="memory.bridges.griptape", repr=False, metadata={"serializable": True})
    _load_legacy: Callable[[], Any] = field(default=places.nothing, alias="load_legacy", repr=False)
    _store: Store = field(init=False, repr=False)
    migrate: bool = field(default=False, repr=False)
    _owned: bool = field(default=False, alias="owned", repr=False)
    _recorder: Recorder = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_id(self.conversation_id, "the conversation's id")
        if self.last is not None and (type(self.last) is not int or self.last < 0):
            raise InvalidValueError(f"last must be an int from 0, not {self.last!r}")
        if self.trimmed not in ("hidden", "deleted"):
            raise InvalidValueError(f"trimmed must be 'hidden' or 'deleted', not {self.trimmed!r}")
        self._store = self._open()
        try:
            if self.migrate:
                self._store.migrate()
            self._store.ensure_ready()
        except BaseException:
            self.close()
            raise
        self._recorder = Recorder(
            self._store,
            self.conversation_id,
            Codec(self.artifacts),
            last=self.last,
            trimmed=self.trimmed,
            load_legacy=self._load_legacy,
        )

    def _open(self) -> Store:
        if isinstance(self._given, Store):
            return self._given if self.namespace is None else self._given.namespace(self.namespace)
        url = normalized(self._given or _with_secrets(self.url))
        store = connect(url, namespace=self.namespace or "default")
        self._owned, self._given, self.url = True, None, url
        return store

    def load(self) -> tuple[list[GriptapeRun], dict[str, Any]]:
        """Return the runs and the conversation's metadata. Griptape calls this when it creates a memory."""
        return self._recorder.load()

    def store(self, runs: list[GriptapeRun], metadata: dict[str, Any]) -> None:
        """Write what changed since the last load or store. Griptape calls this after each run, with the whole conversation."""
        self._recorder.store(runs, metadata)

    def close(self) -> None:
        """Close the store, if it was given as a URL."""
        if self._owned:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # replacements for Griptape's own drivers

    @classmethod
    def local(cls, persist_file: str | None = None, **options: Any) -> Self:
        """Return a replacement for a `LocalConversationMemoryDriver`, which uses a sqlite file beside the old file.

        Args:
            persist_file: as in Griptape. ``chat.json`` is imported once, if it exists, and ``chat.json.sqlite`` is used from
                then on; the conversation's id is ``chat``. With None nothing is persisted, as in Griptape.
            options: arguments of the class.

        Raises:
            PersistenceError: as for the class; the directory must exist.
        """
        return cls(**{**places.local(persist_file), **options})

    @classmethod
    def redis(
        cls,
        *,
        host: str,
        port: int,
        index: str,
        db: int = 0,
        username: str = "default",
        password: str | None = None,
        conversation_id: str | None = None,
        client: "redis.Redis[Any] | None" = None,
        **options: Any,
    ) -> Self:
        """Return a replacement for a `RedisConversationMemoryDriver`, which uses other keys on the same server.

        Args:
            host: as in Griptape.
            port: as in Griptape.
            index: becomes the namespace; ``INDEX@DB`` if ``db`` is not 0, because Redis can search in database 0 only.
            db: the database of the old conversation.
            username: as in Griptape.
            password: as in Griptape.
            conversation_id: as in Griptape; default: a new id for each driver, not one for the whole process.
            client: reads the old conversation; a new client by default.
            options: arguments of the class.

        Raises:
            PersistenceError: as for the class.
        """
        place = places.redis((host, port, username, password), index, db, conversation_id, client)
        return cls(**{**place, **options})

    @classmethod
    def dynamodb(
        cls,
        *,
        table_name: str,
        partition_key: str,
        value_attribute_key: str,
        partition_key_value: str,
        sort_key: str | None = None,
        sort_key_value: str | int | None = None,
        session: "boto3.Session | None" = None,
        memory_table: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a replacement for an `AmazonDynamoDbConversationMemoryDriver`, which uses another table.

        Args:
            table_name: the table of the old conversation.
            partition_key: as in Griptape.
            value_attribute_key: as in Griptape; the namespace is ``TABLE:ATTRIBUTE``.
            partition_key_value: the conversation's id; with a sort key it is ``PARTITION/SORT``.
            sort_key: as in Griptape.
            sort_key_value: as in Griptape.
            session: as in Griptape.
            memory_table: the table to use, created by ``memory migrate``, which stores each run as an item.
            options: arguments of the class.

        Raises:
            ConfigurationError: ``memory_table`` is missing.
            PersistenceError: as for the class.
        """
        key: dict[str, str | int] = {partition_key: partition_key_value}
        if sort_key is not None and sort_key_value is not None:
            key[sort_key] = sort_key_value
        return cls(**{**places.dynamodb(table_name, key, value_attribute_key, session, memory_table), **options})

    @classmethod
    def cloud(
        cls,
        thread_id: str | None = None,
        alias: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a replacement for a `GriptapeCloudConversationMemoryDriver`, which uses the same thread.

        Args:
            thread_id: as in Griptape; the thread must have an alias. Default: ``GT_CLOUD_THREAD_ID``, if ``alias`` is not given.
            alias: as in Griptape; it is the conversation's id.
            base_url: as in Griptape.
            api_key: as in Griptape.
            options: arguments of the class.

        Raises:
            ConfigurationError: the key is missing, or the thread has no alias.
            NotFoundError: the thread does not exist.
            PersistenceError: as for the class.
        """
        return cls(**{**places.cloud(thread_id, alias, base_url, api_key), **options})


def _with_secrets(url: str | None) -> str:
    """Return the store's URL, from the environment if the given one has no password or is missing."""
    given = os.environ.get(URL_VARIABLE)
    if url is not None and _SECRET not in url:
        return url
    if not given:
        what = "no store was given" if url is None else f"{url} has no password"
        raise ConfigurationError(f"{what}: pass store=, or set {URL_VARIABLE} to the store's URL")
    if url is not None and redact(normalized(given)) != url:
        raise ConfigurationError(f"{url} has no password, and {URL_VARIABLE} names another store: {redact(given)}")
    return given
