"""`RedisRepository`: conversations in Redis hashes, found through RediSearch."""

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Final, cast
from urllib.parse import urlsplit

from memory.adapters.redis import durability, records
from memory.adapters.redis.committing import Writer
from memory.adapters.redis.connections import MAX_CONNECTIONS, Connections, client_of
from memory.adapters.redis.errors import NO_CLUSTER
from memory.adapters.redis.index import Index
from memory.adapters.redis.keys import DEFAULT_PREFIX, Keys
from memory.adapters.redis.models import RECORD_FIELDS, Models, bind
from memory.adapters.redis.schema import Schema
from memory.adapters.redis.searching import ANY, Search
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Client, Pool, Script, Wire
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.errors import ConfigurationError
from memory.port.changes import ALL_RUNS, ChangeSet, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.forking import ForkAware, watch
from memory.port.index import Every, Plan, plan
from memory.port.paging import Page, Place, Query
from memory.port.repository import Progress, Repository, RunsRead, SchemaStatus, Window, no_progress
from memory.port.searching import collect, count_pages
from memory.port.urls import options, seconds

_PURGED_AT_ONCE: Final = 500
_NAMED_AT_ONCE: Final = 2_000  # conversations whose namespaces are looked at
_RUNS: Final = Script("shared", "runs")
_PURGE: Final = Script("shared", "purge")


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
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_check_hostname": lambda text: {"true": True, "false": False}[text.lower()],
}


def open_url(url: str) -> "RedisRepository":
    """Return the repository that a ``redis://`` or ``rediss://`` (TLS) URL names.

    ``redis://user:password@host:6379``, and after a ``?`` any of: ``prefix`` of all keys (``memory``), ``timeout`` for a whole
    operation in seconds (30), ``max_connections`` (50; who needs another waits for one), ``client_name``; with TLS also
    ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile`` and ``ssl_check_hostname``.

    Raises:
        ConfigurationError: the URL or an option of it cannot be one.
    """
    given = options(url, _OPTIONS)
    prefix, timeout = str(given.pop("prefix", DEFAULT_PREFIX)), cast(float, given.pop("timeout", DEFAULT_TIMEOUT))
    location = url.partition("?")[0]
    _check_location(location)
    if not location.startswith("rediss:") and (tls := sorted(name for name in given if name.startswith("ssl_"))):
        raise ConfigurationError(f"{', '.join(tls)}: only with TLS, that is rediss://")
    most = cast(int, given.pop("max_connections", MAX_CONNECTIONS))
    client = client_of(location, timeout, **given)
    return RedisRepository(client, prefix=prefix, timeout=timeout, connections=Connections(client, timeout, most))


def _check_location(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and parts.port != 0 and (parts.path.strip("/") or "0").isdecimal()
    except ValueError:  # a port that is no number
        is_url = False
    if not is_url:
        raise ConfigurationError("this is no URL of a Redis server: write redis://user:password@host:6379")


class RedisRepository(Repository, ForkAware):
    """Conversations in a Redis server with search.

    A commit is one script, in one round trip. A conversation, its runs, and a page of conversations are read in one each.

    Args:
        client: a client of the application's, which stays its own: its connections and its TLS are used, its time-outs and its
            retries for connecting only. It must speak RESP3, as redis-py does unless told otherwise, and use database 0.
        prefix: what all keys begin with: stores of different prefixes know nothing of each other.
        timeout: seconds that an operation may take; connecting takes what the client's own settings let it.
        connections: used instead of the client's, and closed in `close`, with the client's: for `open_url`.

    Raises:
        ConfigurationError: the client is one of a cluster, of another database or of RESP2; or the prefix cannot be one.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = DEFAULT_TIMEOUT,
        connections: Connections | None = None,
    ) -> None:
        self._clients_pool = _checked_pool(client)
        self._own = connections
        self._pool: Pool = connections or self._clients_pool
        self._keys = Keys(prefix)
        self.timeout = timeout
        self._wire = Wire(self._pool, timeout, self.__repr__)
        # redis-py's pools notice a fork by themselves; but then they wait for a lock that another thread may have held at that
        # moment, and the child has no such thread.
        self._pool_lock = getattr(self._clients_pool, "_lock", None) or RLock()
        watch(self)
        self.models: Final[Models] = bind(client, prefix, self._keys.index)
        self._schema = Schema(self._wire, self._keys, self.models.index_schema, self.__repr__)
        self._index = Index(self._wire, self._keys, self._schema.explain)

    def before_fork(self) -> None:
        self._pool_lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._pool_lock.release()

    def after_fork_in_child(self) -> None:
        self._pool_lock.release()
        if self._own is not None:
            self._own.reset()

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        key = self._keys.conversation(namespace, conversation_id)
        # No fields of ours may mean no conversation, somebody else's hash, or runs that were left over: looked at in one moment.
        positions = self._keys.positions(namespace, conversation_id)
        said = self._wire.ask_all(
            *(("MULTI",), ("HMGET", key, *RECORD_FIELDS), ("EXISTS", key), ("EXISTS", positions), ("EXEC",))
        )
        *_, answers = map(self._wire.checked, said)  # the first refusal tells more than EXEC's, which follows from it
        fields, exists, has_runs = (self._wire.checked(answer, key) for answer in answers)
        if not exists:
            if has_runs:
                raise records.corrupt(positions, records.LEFT_OVER)
            return None
        conversation = records.conversation(key, fields, conversation_id)
        expires_at = conversation.record.expires_at if conversation.record else None
        return None if expires_at is not None and expires_at <= self.clock() else conversation

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        planned, exact = plan(query.criterion)
        search = self._search(namespace, planned)

        def fetch(after: Place | None, limit: int) -> Sequence[ConversationRecord]:
            return search.page(query.order, after, limit)

        return collect(query, fetch, exact=exact and search.exact)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        planned, exact = plan(criterion)
        search = self._search(namespace, planned)
        if exact and search.exact:
            return search.count()
        return count_pages(lambda query: self.find(namespace, query), criterion)

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        keys = self._keys.conversation(namespace, conversation_id), self._keys.positions(namespace, conversation_id)
        run_keys = self._keys.runs(namespace, conversation_id)
        before = ALL_RUNS if window.before is None else min(window.before, ALL_RUNS)
        limit = -1 if window.limit is None else min(window.limit, ALL_RUNS)
        arguments = (self.clock(), run_keys, min(window.after, ALL_RUNS), before, limit, "1" if window.from_end else "")
        answer = self._wire.read(_RUNS, keys, arguments)
        if not answer:
            return RunsRead(None, ())
        incarnation, version, last_position, positions, *read = answer
        if window.from_end:
            positions, read = positions[::-1], read[::-1]
        runs = records.runs(run_keys, conversation_id, positions, read)
        return RunsRead(records.seen(keys[0], incarnation, version), tuple(runs), int(last_position))

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        return Writer(self._wire, self._keys, namespace, self.clock()).write(changes)

    def namespaces(self) -> set[str]:
        names: set[str] = set()
        while True:  # what is found in none of those known is in others; some may be in one with all others
            known = "|".join(Tokens(self._keys.prefix, name).namespace for name in names)
            found = self._index.keys_found(ANY + (f" -@namespace:{{{known}}}" if known else ""), _NAMED_AT_ONCE)
            new = {self._keys.namespace_of(key) for key in found} - names
            if not new:
                return names
            names |= new

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        while True:
            keys = self._search(namespace, Every(), expired=True).keys_found(_PURGED_AT_ONCE)
            others = [self._keys.of_the_same(key) for key in keys]
            names = [name for key, (positions, _) in zip(keys, others, strict=True) for name in (key, positions)]
            (removed,) = self._wire.read(_PURGE, names, [self.clock(), *(runs for _, runs in others)])
            purged += int(removed)
            if len(keys) < _PURGED_AT_ONCE or not removed:
                return purged

    def schema_status(self) -> SchemaStatus:
        return self._schema.status()

    def migration_steps(self) -> list[str]:
        return self._schema.steps()

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Make the index, or bring it to this version of the code; by the old one all is found until the new one is full."""
        return self._schema.migrate(progress)

    def warnings(self) -> list[str]:
        return durability.warnings(self._wire, self._keys)

    def close(self) -> None:
        if self._own is not None:
            self._own.disconnect()
            self._clients_pool.disconnect()

    def _search(self, namespace: str, planned: Plan, *, expired: bool = False) -> Search:
        return Search(self._index, self._keys, namespace, planned, now=self.clock(), expired=expired)

    def __repr__(self) -> str:
        settings = self._pool.connection_kwargs
        where = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
        return f"RedisRepository({where}, prefix={self._keys.prefix!r})"


def _checked_pool(client: Client) -> Pool:
    pool: Pool | None = getattr(client, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(f"a {type(client).__name__} is no client of a single server; {NO_CLUSTER}")
    settings = pool.connection_kwargs
    if settings.get("db"):
        raise ConfigurationError(f"Redis searches in its database 0 only, not in {settings['db']}")
    if str(settings.get("protocol") or 3) != "3":
        raise ConfigurationError(
            "over RESP2 a server does not say that it cut a query short: make the client with protocol=3"
        )
    return pool
