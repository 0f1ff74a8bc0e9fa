"""`DynamoDbRepository`: stores conversations in one table of Amazon DynamoDB."""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import unquote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoRegionError

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.committing import Commit
from memory.adapters.dynamodb.purging import purge
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.records import ATTRIBUTES, Head
from memory.adapters.dynamodb.schema import FORMATS, MOST_SHARDS, Schema, TableOptions
from memory.adapters.dynamodb.searching import DynamoDbSearch
from memory.adapters.dynamodb.table import MOST_ACTIONS, Table
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.errors import ConfigurationError
from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.index import plan
from memory.port.repository import Capabilities, Progress, Repository, RunsRead, SchemaStatus, Window, no_progress
from memory.port.urls import options, seconds

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_CONNECTED_WITHIN: Final = 5  # seconds; a reachable server accepts a connection much faster
_ANSWERED_WITHIN: Final = 10  # seconds, after which a read is retried on another connection
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def _tags(value: str) -> dict[str, str]:
    """Parse tags in the form ``team:chat,stage:live``."""
    return {name: tag for name, _, tag in (each.partition(":") for each in value.split(",")) if name or tag}


_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    **dict.fromkeys(("region", "endpoint", "profile", "partition_key", "sort_key", "kms_key"), str),
    **dict.fromkeys(("shards", "read_units", "write_units"), int),
    **dict.fromkeys(("point_in_time_recovery", "deletion_protection"), lambda value: _YES_NO[value.lower()]),
    "tags": _tags,
    "timeout": seconds,
}


def open_url(url: str) -> "DynamoDbRepository":
    """Return the repository for ``dynamodb://TABLE?...``; docs/dynamodb.md lists the options.

    boto3 finds the credentials in the environment, in a profile, or from the machine's role.
    """
    given = cast(dict[str, Any], options(url, _OPTIONS))
    name = unquote(url.partition("://")[2].partition("?")[0].rstrip("/"))
    # An @ would introduce credentials, which the URL must not contain.
    if not name or "/" in name or "@" in f"{name}{given.get('endpoint', '')}":
        raise ConfigurationError("the URL is invalid: write dynamodb://TABLE?region=eu-central-1")
    table_options = TableOptions(
        **{each.name: given.pop(each.name) for each in fields(TableOptions) if each.name in given}
    )
    return DynamoDbRepository(name, table_options=table_options, **given)


class DynamoDbRepository(Repository):
    """Stores conversations in one table: an item per conversation, an item per run, and small items for lists and the index.

    Args:
        table: the name of the table.
        session: the application's boto3 ``Session``.
        client: the application's boto3 DynamoDB client; `close` does not close it.
        region: the table's region; if None, boto3's default, or else AWS_REGION.
        endpoint: an endpoint other than Amazon's, such as DynamoDB Local.
        profile: a profile of the AWS configuration.
        partition_key: the name of the table's partition key, a string.
        sort_key: the name of the table's sort key, a string.
        shards: the number of partitions over which `migrate` spreads each list, and the entries of each metadata path. It can
            be increased later.
        table_options: how `migrate` creates the table.
        timeout: the maximum duration of one operation in seconds, including all its requests.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(largest_commit=MOST_ACTIONS)
    concurrency: tuple[int, int] = (50, 50)

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
        table_options: TableOptions | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not 1 <= shards <= MOST_SHARDS:
            raise ConfigurationError(f"shards must be 1 to {MOST_SHARDS}, not {shards}")
        if partition_key == sort_key:
            raise ConfigurationError(f"partition_key and sort_key cannot both be {sort_key!r}")
        if taken := ATTRIBUTES & {partition_key, sort_key}:
            raise ConfigurationError(
                f"{min(taken)!r} is an attribute of the items: choose another name for the table's key"
            )
        if not timeout > 0:
            raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout:g}")
        config = Config(
            connect_timeout=min(timeout, _CONNECTED_WITHIN),
            read_timeout=min(timeout, _ANSWERED_WITHIN),
            # botocore must not retry: this adapter retries what is safe, and so knows which requests may have arrived.
            retries={"total_max_attempts": 1},
            max_pool_connections=self.concurrency[0],
            parameter_validation=False,
        )
        self.timeout = timeout
        self._clients = Clients(client, lambda: _make_client(session, region, endpoint, profile, config))
        self._name, self._region = table, self.client.meta.region_name
        self._options = table_options or TableOptions()
        self._table = Table(table, (partition_key, sort_key), self, self._clients, repeats=client is not None)
        self._seen: OrderedDict[tuple[str, str], Head] = OrderedDict()
        self._schema = Schema(self._table, self._clients, self, shards, self._options)

    @property
    def client(self) -> "DynamoDBClient":
        """The boto3 client of this process."""
        return self._clients.get()

    def _space(self, namespace: str, shards: int = 0) -> Space:
        return Space(self._table, self._seen, namespace, shards)

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        space = self._space(namespace)
        record = space.records(space.heads([conversation_id]), self.clock()).get(conversation_id)
        return None if record is None else Conversation.from_record(record)

    @contextmanager
    def searching(self, namespace: str, criterion: Criterion) -> Iterator[DynamoDbSearch]:
        planned, _ = plan(criterion)
        space = self._space(namespace, self._schema.shards().reading)
        yield DynamoDbSearch(space, planned, self.clock())

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        head, records = self._space(namespace).runs(conversation_id, window, self.clock())
        if head.record is None:
            return RunsRead(None, ())
        seen = ExpectedVersion(head.record.incarnation, head.record.version)
        runs = tuple([Run.from_record(conversation_id, record) for record in records])
        return RunsRead(seen, runs, head.record.last_position)

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        return Commit(self._space(namespace, self._schema.shards().writing), changes, self.clock).run()

    def namespaces(self) -> set[str]:
        counts: Counter[str] = Counter()
        for item in self._table.query(keys.COUNTS, keys.LOWEST, keys.HIGHEST):
            counts[item.text("namespace")] += item.number("count")
        return {namespace for namespace, count in counts.items() if count > 0}

    def purge_expired(self, namespace: str) -> int:
        """Remove expired conversations, and items left by removals and interrupted commits; return how many had expired."""
        return purge(self._space(namespace, self._schema.shards().reading), self.clock)

    def schema_status(self) -> SchemaStatus:
        return self._schema.status()

    def migration_steps(self) -> list[str]:
        return [words for words, _ in self._schema.steps()]

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Create the table, or complete an existing one, and wait until it is active.

        Raises:
            SchemaError: the existing table cannot be used; the message says why.
        """
        return self._schema.migrate(progress)

    def definition(self, format: str) -> str:
        """Return the definition of the table that `migrate` creates, in the format ``cloudformation`` or ``terraform``.

        Raises:
            ConfigurationError: the format is unknown.
        """
        if (printed := FORMATS.get(format)) is None:
            raise ConfigurationError(f"a DynamoDB table can be printed as {' or '.join(FORMATS)}, not as {format!r}")
        return printed(self._name, self._table.key_names, self._options)

    def close(self) -> None:
        self._clients.close()

    def __repr__(self) -> str:
        return f"DynamoDbRepository({self._name!r}, region={self._region!r})"


def _make_client(
    session: "boto3.Session | None", region: str | None, endpoint: str | None, profile: str | None, config: Config
) -> "DynamoDBClient":
    try:
        session = session or boto3.Session(profile_name=profile, region_name=region)
        # Lambda sets AWS_REGION, and AWS's other SDKs read it; boto3 reads only AWS_DEFAULT_REGION.
        region = region or session.region_name or os.environ.get("AWS_REGION")
        return session.client("dynamodb", region_name=region, endpoint_url=endpoint, config=config)
    except NoRegionError as error:
        raise ConfigurationError(
            "no region is configured: write ?region=... in the URL, or set AWS_REGION or AWS_DEFAULT_REGION"
        ) from error
    except (BotoCoreError, ValueError) as error:  # botocore raises ValueError for an endpoint that is not a URL
        raise ConfigurationError(f"the DynamoDB client cannot be created: {error}") from error
