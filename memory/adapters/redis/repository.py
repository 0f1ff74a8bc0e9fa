"""`RedisRepository`: stores conversations in hashes, orders them in sorted sets, and searches them with RediSearch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from memory.adapters.redis import records
from memory.adapters.redis.committing import Writer
from memory.adapters.redis.connections import client_of, close, place_of
from memory.adapters.redis.errors import NO_CLUSTER
from memory.adapters.redis.keys import CONVERSATION, DEFAULT_PREFIX, Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.schema import Schema
from memory.adapters.redis.searching import Index, Search
from memory.adapters.redis.wire import Command, Script, Wire
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.errors import ConfigurationError, CorruptRecordError
from memory.port.changes import ALL_RUNS, ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.forking import ForkAware, watch
from memory.port.repository import Progress, Repository, RunsRead, SchemaStatus, Window, no_progress
from memory.port.urls import options, seconds

_PURGED_AT_ONCE: Final = 200  # conversations per script, which takes about 5 ms of the server's time
_PURGE: Final = Script("shared", "purge")
_MOST_THREADS: Final = 50  # of an application's pool, which may have no limit
_WITHOUT_METADATA: Final = ["id" if name == "metadata" else name for name in RECORD_FIELDS]  # which can be large


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    "prefix": str,
    "timeout": seconds,
    "max_connections": _positive,
    "client_name": str,
    "db": int,
    "sentinel_username": str,
    "sentinel_password": str,
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_check_hostname": lambda text: {"true": True, "false": False}[text.lower()],
    "ssl_cert_reqs": lambda text: {"none": "none", "optional": "optional", "required": "required"}[text.lower()],
}


def open_url(url: str) -> "RedisRepository":
    """Return the repository for the URL of a Redis or Valkey server; docs/redis.md lists the forms and the options.

    Raises:
        ConfigurationError: the URL or an option is not valid.
    """
    given = options(url, _OPTIONS)
    prefix, timeout = str(given.pop("prefix", DEFAULT_PREFIX)), cast(float, given.pop("timeout", DEFAULT_TIMEOUT))
    repository = RedisRepository(client_of(url.partition("?")[0], timeout, given), prefix=prefix, timeout=timeout)
    repository._closes = True  # noqa: SLF001
    return repository


class RedisRepository(Repository, ForkAware):
    """Stores conversations in a Redis server with search.

    A commit runs one script in one round trip. Reading a conversation, its runs, or a page of an order takes one round trip each.

    Args:
        client: the application's client; `close` does not close it. Its connections and TLS settings are used, but its timeouts
            and retries apply to connecting only. It must use RESP3, which is redis-py's default, and database 0.
        prefix: the prefix of all keys. Stores with different prefixes are independent of each other.
        timeout: the maximum duration of an operation in seconds. Connecting is limited by the client's own settings.

    Raises:
        ConfigurationError: the client uses a cluster, a database other than 0, or RESP2; or the prefix is invalid.
    """

    _closes = False  # whether `close` closes the client

    def __init__(self, client: Any, *, prefix: str = DEFAULT_PREFIX, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._client, self._pool = (
            client,
            _checked_pool(client),
        )  # redis-py closes the pool of a client that nobody references
        self._keys = Keys(prefix)
        self.timeout = timeout
        self._wire = Wire(self._pool, timeout, self.__repr__)
        self._writer = Writer(self._wire, self._keys)
        self._schema = Schema(self._wire, self._keys)
        self._index = Index(self._wire, self._keys, self._schema.explain)
        self.concurrency = (min(self._pool.max_connections, _MOST_THREADS),) * 2
        watch(self)

    # redis-py's pools detect a fork themselves, but then acquire a lock. If another thread held the lock during the fork, the
    # child would wait forever.

    def before_fork(self) -> None:
        self._pool._lock.acquire()  # noqa: SLF001

    def after_fork_in_parent(self) -> None:
        self._pool._lock.release()  # noqa: SLF001

    def after_fork_in_child(self) -> None:
        self._pool.reset()
        self._pool._lock.release()  # noqa: SLF001

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        record, _ = self._read(namespace, conversation_id, RECORD_FIELDS)
        try:
            return None if record is None else Conversation.from_record(record)
        except CorruptRecordError as error:
            raise records.corrupt(self._keys.conversation(namespace, conversation_id), error) from error

    def _read(
        self, namespace: str, conversation_id: str, fields: Sequence[str], *more: Command
    ) -> tuple[ConversationRecord | None, list[Any]]:
        """Return a conversation's record (or None) and the replies to more commands, all read in one transaction."""
        key, ids = self._keys.conversation(namespace, conversation_id), self._keys.order(namespace, "id")
        found, exists, listed, *answers = self._wire.transaction(
            ("HMGET", key, *fields), ("EXISTS", key), ("ZSCORE", ids, conversation_id), *more
        )
        if not exists:
            if listed is not None:
                raise records.corrupt(key, records.LEFT_OVER)
            return None, answers
        record = records.conversation(self._keys, namespace, key, found)
        return None if record.is_expired(self.clock()) else record, answers

    @contextmanager
    def searching(self, namespace: str, criterion: Criterion) -> Iterator[Search]:
        yield Search(self._wire, self._index, self._keys, namespace=namespace, criterion=criterion, now=self.clock())

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        key = self._keys.runs(namespace, conversation_id)
        low, high = f"({window.after}", "+inf" if window.before is None else f"({window.before}"
        ends = (high, low, "BYSCORE", "REV") if window.from_end else (low, high, "BYSCORE")
        limit = -1 if window.limit is None else min(window.limit, ALL_RUNS)
        commands = (("ZCARD", key), ("ZRANGE", key, *ends, "LIMIT", 0, limit))
        record, (size, members) = self._read(namespace, conversation_id, _WITHOUT_METADATA, *commands)
        if record is None:
            return RunsRead(None, ())
        if size != record.run_count:
            raise records.corrupt(key)
        runs = records.runs(key, conversation_id, members[::-1] if window.from_end else members)
        return RunsRead(ExpectedVersion(record.incarnation, record.version), runs, record.last_position)

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        return self._writer.write(namespace, changes, self.clock())

    def namespaces(self) -> set[str]:
        return {name.decode() for name in self._wire.ask("SMEMBERS", self._keys.namespaces)}

    def purge_expired(self, namespace: str) -> int:
        keys = [self._keys.namespaces, *self._keys.orders(namespace)]
        prefixes = [self._keys.of_namespace(kind, namespace) for kind in (CONVERSATION, "runs")]
        purged, found = 0, _PURGED_AT_ONCE
        while found == _PURGED_AT_ONCE:
            found, removed = self._wire.read(_PURGE, keys, [self.clock(), namespace, *prefixes, _PURGED_AT_ONCE])
            purged += int(removed)
        return purged

    def schema_status(self) -> SchemaStatus:
        return self._schema.status()

    def migration_steps(self) -> list[str]:
        return self._schema.steps()

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Create the index or migrate it to the current version. The old index serves searches until the new one is complete."""
        return self._schema.migrate(progress)

    def warnings(self) -> list[str]:
        return self._schema.warnings()

    def close(self) -> None:
        if self._closes:
            close(self._pool)

    def __repr__(self) -> str:
        return f"RedisRepository({place_of(self._pool)}, prefix={self._keys.prefix!r})"


def _checked_pool(client: Any) -> Any:
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(f"{type(client).__name__} is not a client of a single server; {NO_CLUSTER}")
    settings = pool.connection_kwargs
    if settings.get("db"):
        raise ConfigurationError(f"the client uses database {settings['db']}, but Redis can search only database 0")
    if str(settings.get("protocol") or 3) != "3":
        raise ConfigurationError(
            "the client uses RESP2, which does not report incomplete query results: create the client with protocol=3"
        )
    return pool
