"""`RepositoryConversationMemoryDriver`: Griptape's conversation memory, in any store."""

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
from memory.connecting import redact
from memory.errors import ConfigurationError, InvalidValueError
from memory.store import Store, connect
from memory.values import check_id, new_id

if TYPE_CHECKING:
    import boto3
    import redis

URL_VARIABLE: Final = "MEMORY_URL"
"""The environment variable with the store's URL, where a driver that is made from its own JSON cannot have it from there."""

_SECRET: Final = "***"  # noqa: S105  # what `redact` writes for one


@define(kw_only=True, eq=False)
class RepositoryConversationMemoryDriver(BaseConversationMemoryDriver):
    """Keeps a conversation of Griptape's in a store: an Agent, Pipeline or Workflow uses it as any other driver.

    A turn writes its own run and nothing else, whatever the length of the conversation. What several processes, threads and
    memories add to one conversation is all kept. `store` and `load` raise the errors of `memory.errors`; what a `store` could not
    write, the next one writes.

    Args:
        store: a `memory.Store`, which stays open, or the URL of one.
        conversation_id: 1 to 255 characters; a new unique id, when left out.
        last: how many runs are loaded, from the end; all, when left out. What is not loaded is not changed either.
        trimmed: what becomes of runs that ``max_runs`` takes out of the memory: ``"hidden"``, they stay in the store but are
            not loaded again; ``"deleted"``, they go.
        artifacts: artifact classes of the application's own. Others that are stored are loaded as `RawArtifact`.
        namespace: in the store; the one that a `Store` has, when left out.
        url: in the place of ``store``, as ``to_dict`` writes it: without a password, which comes with the URL in ``MEMORY_URL``.
        migrate: bring the store's schema to the one this code needs, as ``memory migrate`` does.
        owned: `close` closes a `Store` too.
        bring: called once where there is no such conversation yet: gives the runs and the metadata it is to begin with.

    Raises:
        ConfigurationError: there is no store, or its URL cannot be one.
        InvalidValueError: the id, or another argument, cannot be one.
        SchemaError: the store's schema is not the one this code needs.
        StoreUnavailableError: it cannot be reached: better now than after a model was paid.

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
    _bring: Callable[[], Any] = field(default=places.nothing, alias="bring", repr=False)
    _store: Store = field(init=False, repr=False)
    migrate: bool = field(default=False, repr=False)
    _owned: bool = field(default=False, alias="owned", repr=False)
    _recorder: Recorder = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_id(self.conversation_id, "the conversation's id")
        if self.last is not None and (type(self.last) is not int or self.last < 0):
            raise InvalidValueError(f"last is a number of runs, from 0, not {self.last!r}")
        if self.trimmed not in ("hidden", "deleted"):
            raise InvalidValueError(f"trimmed must be 'hidden' or 'deleted', not {self.trimmed!r}")
        self._store = self._open()
        try:
            if self.migrate:
                self._store.migrate()
            self._store.begin()  # looks at the schema
        except BaseException:
            self.close()
            raise
        self._recorder = Recorder(
            self._store,
            self.conversation_id,
            Codec(self.artifacts),
            last=self.last,
            trimmed=self.trimmed,
            bring=self._bring,
        )

    def _open(self) -> Store:
        if isinstance(self._given, Store):
            return self._given if self.namespace is None else self._given.namespace(self.namespace)
        url = self._given or _with_secrets(self.url)
        store = connect(url, namespace=self.namespace or "default")
        self._owned, self._given, self.url = True, None, url
        return store

    @property
    def memory_store(self) -> Store:
        """The store that the conversation is kept in, in its namespace."""
        return self._store

    def load(self) -> tuple[list[GriptapeRun], dict[str, Any]]:
        """Return the runs, and the conversation's metadata. Griptape calls this when it makes a memory."""
        return self._recorder.load()

    def store(self, runs: list[GriptapeRun], metadata: dict[str, Any]) -> None:
        """Write what is new or changed in a conversation. Griptape calls this after each run, with all of it."""
        self._recorder.store(runs, metadata)

    def close(self) -> None:
        """Close the store, if it was given as a URL."""
        if self._owned:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # in the place of Griptape's own drivers

    @classmethod
    def local(cls, persist_file: str | None = None, **options: Any) -> Self:
        """Return a driver in the place of a `LocalConversationMemoryDriver`: in a sqlite file beside the old one.

        Args:
            persist_file: as there. ``chat.json`` is read once, if there is one, and ``chat.json.sqlite`` written from then on;
                the conversation's id is ``chat.json``. None keeps nothing, as there.
            options: of the class itself.

        Raises:
            PersistenceError: as the class itself; the directory must be there.
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
        """Return a driver in the place of a `RedisConversationMemoryDriver`: on the same server, in keys of our own.

        Args:
            host: as there.
            port: as there.
            index: the namespace; with ``@`` and ``db`` after it, if that is not 0: Redis has its search in database 0 only.
            db: where the old conversation is.
            username: as there.
            password: as there.
            conversation_id: as there; a new one when left out, not one that is shared by all of a process.
            client: reads the old conversation, in the place of one that is made.
            options: of the class itself.

        Raises:
            PersistenceError: as the class itself.
        """
        place = places.redis(
            host,
            port,
            index,
            db=db,
            username=username,
            password=password,
            conversation_id=conversation_id,
            client=client,
        )
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
        """Return a driver in the place of an `AmazonDynamoDbConversationMemoryDriver`, in a table of its own.

        Args:
            table_name: where the old conversation is.
            partition_key: as there.
            value_attribute_key: as there; the namespace is this, with the old table's name and a colon before it.
            partition_key_value: the conversation's id; with a slash and ``sort_key_value`` after it, if there is one.
            sort_key: as there.
            sort_key_value: as there.
            session: as there.
            memory_table: the table that is written, made by ``memory migrate``: a run is an item there, under other keys.
            options: of the class itself.

        Raises:
            ConfigurationError: no ``memory_table`` was given.
            PersistenceError: as the class itself.
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
        """Return a driver in the place of a `GriptapeCloudConversationMemoryDriver`: in the same thread.

        Args:
            thread_id: as there; it must have an alias. What ``GT_CLOUD_THREAD_ID`` says, when both are left out.
            alias: as there: the conversation's id.
            base_url: as there.
            api_key: as there.
            options: of the class itself.

        Raises:
            ConfigurationError: there is no key, or the thread has no alias.
            NotFoundError: there is no such thread.
            PersistenceError: as the class itself.
        """
        return cls(**{**places.cloud(thread_id, alias, base_url, api_key), **options})


def _with_secrets(url: str | None) -> str:
    """Return the URL of a store, from the environment where it was written without its password, or not at all."""
    given = os.environ.get(URL_VARIABLE)
    if url is not None and _SECRET not in url:
        return url
    if not given:
        what = "no store was given" if url is None else f"{url} has no password"
        raise ConfigurationError(f"{what}: give store=, or set {URL_VARIABLE} to the store's URL")
    if url is not None and redact(given) != url:
        raise ConfigurationError(f"{url} has no password, and {URL_VARIABLE} is another store's: {redact(given)}")
    return given
