"""`DynamoDbRepository`: conversations in one table of Amazon DynamoDB."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import unquote

import boto3
from botocore.config import Config

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.committing import Commit
from memory.adapters.dynamodb.models import Models
from memory.adapters.dynamodb.reading import Reader
from memory.adapters.dynamodb.schema import Schema
from memory.adapters.dynamodb.searching import Search
from memory.adapters.dynamodb.staging import ABANDONED_AFTER, Staging
from memory.adapters.dynamodb.sweeping import Sweeper
from memory.adapters.dynamodb.table import Table
from memory.adapters.dynamodb.writing import Writer
from memory.domain.criteria import EVERYTHING, Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord
from memory.errors import ConfigurationError, PersistenceError
from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.index import plan
from memory.port.paging import Order, Page, Place, Query
from memory.port.repository import Capabilities, Progress, Repository, RunsRead, SchemaStatus, Window, no_progress
from memory.port.searching import collect
from memory.port.urls import options

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_log = logging.getLogger("memory")
_MOST_SHARDS: Final = 100
_COUNTED_AT_ONCE: Final = 1_000
_CONNECTED_WITHIN: Final = 5  # seconds; a server that can be reached takes none
_ANSWERED_WITHIN: Final = 10  # seconds; a read is then asked again, on another connection
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    "region": str,
    "endpoint": str,
    "profile": str,
    "partition_key": str,
    "sort_key": str,
    "shards": int,
    "point_in_time_recovery": lambda value: _YES_NO[value.lower()],
    "timeout": float,
}


def open_url(url: str) -> "DynamoDbRepository":
    """Return the repository that ``dynamodb://TABLE?...`` names; docs/dynamodb.md lists the options.

    Credentials come from where boto3 looks for them: the environment, a profile, the machine's role.
    """
    given = cast(dict[str, Any], options(url, _OPTIONS))
    name = unquote(url.partition("://")[2].partition("?")[0].rstrip("/"))
    if (
        not name or "/" in name or "@" in f"{name}{given.get('endpoint', '')}"
    ):  # credentials, which are never in the URL
        raise ConfigurationError("a DynamoDB store's URL looks like dynamodb://TABLE?region=eu-central-1")
    return DynamoDbRepository(name, **given)


class DynamoDbRepository(Repository):
    """One table; an item for each conversation's head, one for each run, and small ones by which conversations are found.

    Args:
        table: its name.
        session: a boto3 ``Session`` of the application's.
        client: a boto3 DynamoDB client of the application's, which stays its own.
        region: where the table is; as boto3 finds it, when left out.
        endpoint: another address than Amazon's: DynamoDB Local.
        profile: a profile of the AWS configuration.
        partition_key: the name of the table's partition key, which is binary.
        sort_key: the name of its sort key, which is binary too.
        shards: over how many partitions each list, and each key of the metadata, is spread. Fixed when the table is made.
        point_in_time_recovery: `migrate` turns it on.
        timeout: seconds that one operation may take, with all its requests.

    Raises:
        ConfigurationError: these cannot be.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()

    abandoned_after: int = ABANDONED_AFTER
    """Microseconds after which a commit in several transactions, of which nothing is heard, is taken for abandoned."""

    def __init__(
        self,
        table: str,
        *,
        session: "boto3.Session | None" = None,
        client: "DynamoDBClient | None" = None,
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        partition_key: str = "pk",
        sort_key: str = "sk",
        shards: int = 1,
        point_in_time_recovery: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not 1 <= shards <= _MOST_SHARDS:
            raise ConfigurationError(f"shards must be 1 to {_MOST_SHARDS}, not {shards}")
        if partition_key == sort_key:
            raise ConfigurationError(f"partition_key and sort_key cannot both be {sort_key!r}")
        if not timeout > 0:
            raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout:g}")
        config = Config(
            connect_timeout=min(timeout, _CONNECTED_WITHIN),
            read_timeout=min(timeout, _ANSWERED_WITHIN),
            # Once: this adapter repeats what is safe to repeat, and knows then what may have arrived.
            retries={"total_max_attempts": 1},
            max_pool_connections=50,
            parameter_validation=False,
        )
        self.timeout = timeout
        self._clients = Clients(client, lambda: _make_client(session, region, endpoint, profile, config))
        self._name, self._shards, self._region = table, shards, self.client.meta.region_name
        attempts = cast(Any, self.client.meta.config).retries or {}
        self._table = Table(
            Models(table, partition_key, sort_key, self._clients),
            table,
            self,
            self._clients,
            sent_once=attempts.get("total_max_attempts") == 1,
        )
        self._reader = Reader(self._table)
        self._schema = Schema(
            self._table, self._clients, self, shards=shards, point_in_time_recovery=point_in_time_recovery
        )

    @property
    def client(self) -> "DynamoDBClient":
        """The boto3 client that this process uses."""
        return self._clients.get()

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        kept = self._reader.kept(namespace, [conversation_id]).get(conversation_id)
        return None if kept is None or kept.is_expired(self.clock()) else Conversation.from_record(kept.record)

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        records: Iterator[ConversationRecord] | None = None

        def fetch(after: Place | None, limit: int) -> Sequence[ConversationRecord]:
            nonlocal records
            limit = min(limit, sys.maxsize)
            if records is None:
                records = self._search(namespace, query.criterion).records(query.order, after, limit)
            return list(islice(records, limit))

        return collect(query, fetch, exact=query.criterion is EVERYTHING)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        # By time, oldest first: what moves meanwhile moves to the end, and is not missed; only what is new is looked at twice.
        order = Order("updated_at", descending=False)
        counted: set[str] = set()
        for record in self._search(namespace, criterion).records(order, None, _COUNTED_AT_ONCE):
            if record.id not in counted and criterion.matches(Conversation.from_record(record)):
                counted.add(record.id)
        return len(counted)

    def namespaces(self) -> set[str]:
        """As `Repository.namespaces`; the only call that reads the whole table: DynamoDB has no list of partitions."""
        # What has expired is in the second list alone, once DynamoDB has removed all else: until it is purged.
        found = self._table.scan_partitions(keys.BY_ID, keys.BY_EXPIRY)
        return {keys.listed_namespace(pk) for pk in found}

    def _search(self, namespace: str, criterion: Criterion) -> Search:
        planned, _ = plan(criterion)
        return Search(self._table, self._reader, namespace, self._shards, planned, now=self.clock())

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        kept, records = self._reader.runs(namespace, conversation_id, window, self.clock())
        if kept is None:
            return RunsRead(None, ())
        seen = ExpectedVersion(kept.record.incarnation, kept.record.version)
        runs = tuple([Run.from_record(conversation_id, record) for record in records])
        return RunsRead(seen, runs, kept.record.last_position)

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        writer, staging = self._writing(namespace)
        receipt, has_trash = Commit(writer, staging, changes, self.clock).run()
        if has_trash:
            try:
                Sweeper(writer, staging, self.clock).empty_trash()
            except PersistenceError as error:  # the commit has happened; the next one, or `purge_expired`, sweeps
                _log.warning("%r: what a commit left could not be removed yet: %s", self, error)
        return receipt

    def purge_expired(self, namespace: str) -> int:
        writer, staging = self._writing(namespace)
        return Sweeper(writer, staging, self.clock).purge()

    def _writing(self, namespace: str) -> tuple[Writer, Staging]:
        writer = Writer(self._table, self._reader, namespace, self._shards)
        return writer, Staging(writer, self.abandoned_after)

    def schema_status(self) -> SchemaStatus:
        return self._schema.status()

    def migration_steps(self) -> list[str]:
        return self._schema.steps()

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Make the table if there is none, and what it lacks; wait until it can be used.

        Raises:
            SchemaError: there is a table that cannot be used; the message says what is wrong with it.
        """
        return self._schema.migrate(progress)

    def close(self) -> None:
        self._clients.close()

    def __repr__(self) -> str:
        return f"DynamoDbRepository({self._name!r}, region={self._region!r})"


def _make_client(
    session: "boto3.Session | None", region: str | None, endpoint: str | None, profile: str | None, config: Config
) -> "DynamoDBClient":
    from botocore.exceptions import BotoCoreError

    try:
        session = session or boto3.Session(profile_name=profile, region_name=region)
        # AWS's other kits read AWS_REGION, and Lambda sets it; boto3 reads AWS_DEFAULT_REGION alone.
        region = region or session.region_name or os.environ.get("AWS_REGION")
        return session.client("dynamodb", region_name=region, endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: botocore's, for an endpoint that is no URL
        raise ConfigurationError(f"no client for DynamoDB can be made: {error}") from error
