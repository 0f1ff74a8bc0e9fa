"""The table: how it is made, what must be true of one that is there, and the version of what is kept in it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.errors import code_of
from memory.adapters.dynamodb.models import TTL
from memory.adapters.dynamodb.table import RefusedError, Table
from memory.errors import SchemaError
from memory.port.repository import Progress, SchemaStatus

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef

HEAD: Final = "0001"
"""The version of what this code writes: the layout of docs/dynamodb.md."""

_ACTIVE: Final = "ACTIVE"
_NOT_HERE: Final = frozenset(["UnknownOperationException"])  # DynamoDB Local has no back-ups
_PAUSE: Final = 0.5  # seconds
_PATIENCE: Final = 600


class Schema:
    """The schema of one table."""

    def __init__(
        self, table: Table, clients: Clients, where: object, *, shards: int, point_in_time_recovery: bool
    ) -> None:
        self._table = table
        self._clients = clients
        self._where = where
        self._shards = shards
        self._point_in_time_recovery = point_in_time_recovery

    def status(self) -> SchemaStatus:
        """Return the version in the table, and this code's: one request.

        Raises:
            SchemaError: the table is not one that this repository can use as it is set up.
        """
        try:
            item = self._table.get(keys.SCHEMA)
        except SchemaError:
            return SchemaStatus(None, HEAD)  # there is no table
        if item is None:
            return SchemaStatus(None, HEAD)
        if item.shards != self._shards:
            raise SchemaError(
                f"{self._where}: the table was made with shards={item.shards:.0f}, and this store is opened with "
                f"shards={self._shards}: open it as it was made"
            )
        return SchemaStatus(item.version, HEAD)

    def steps(self) -> list[str]:
        """Return in words what `migrate` would do.

        Raises:
            SchemaError: there is a table that cannot be used; the message says what is wrong with it.
        """
        return [words for words, _ in self._plan()]

    def migrate(self, progress: Progress) -> SchemaStatus:
        """Make the table, or what it lacks; tell of each step before it is done.

        Raises:
            SchemaError: there is a table that cannot be used, or it has a newer version.
        """
        steps = self._plan()
        for number, (words, step) in enumerate(steps):
            progress(words, number / len(steps))
            self._call(step)
        return self.status()

    def _plan(self) -> list[tuple[str, Callable[[], object]]]:
        name = self._table.name
        description = self._describe()
        steps: list[tuple[str, Callable[[], object]]] = []
        if description is None:
            steps.append((f"create the table {name}, billed on demand, and wait for it", self._create))
        else:
            self._check(description)
            if description.get("TableStatus") != _ACTIVE:
                steps.append((f"wait for the table {name}: it is {description.get('TableStatus')}", self._wait))
        if description is None or not self._has_ttl():
            steps.append((f"let DynamoDB remove what has expired, by the attribute {TTL}", self._enable_ttl))
        if self._point_in_time_recovery and (description is None or not self._has_recovery()):
            steps.append(("turn on point-in-time recovery", self._enable_recovery))
        current = None if description is None else self.status().current
        if current is not None and current > HEAD:
            raise SchemaError(f"{self._where}: {SchemaStatus(current, HEAD).advice()}")
        if current is None:
            steps.append((f"write the schema's version, {HEAD}, into the table", self._write_version))
        return steps

    # the table

    def _describe(self) -> "TableDescriptionTypeDef | None":
        try:
            return self._clients.get().describe_table(TableName=self._table.name)["Table"]
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise self._table.translated(error) from error

    def _check(self, description: "TableDescriptionTypeDef") -> None:
        """Refuse a table with other keys, and say what is wrong with them."""
        types = {each["AttributeName"]: each["AttributeType"] for each in description.get("AttributeDefinitions", ())}
        found: dict[str, str] = {each["KeyType"]: each["AttributeName"] for each in description.get("KeySchema", ())}
        wrong = []
        for kind, what, option, name in (
            ("HASH", "partition key", "partition_key", self._table.models.keys[0]),
            ("RANGE", "sort key", "sort_key", self._table.models.keys[1]),
        ):
            has = found.get(kind)
            if has is None:
                wrong.append(f"it has no {what}")
            elif has != name:
                wrong.append(f"its {what} is {has!r}, not {name!r}: open it with {option}={has}")
            elif types.get(has) != "B":
                wrong.append(f"its {what} {has!r} has type {types.get(has)}, not B (binary)")
        if wrong:
            raise SchemaError(f"{self._where}: the table {self._table.name} cannot be used: {'; '.join(wrong)}")

    def _create(self) -> None:
        names = self._table.models.keys
        self._clients.get().create_table(
            TableName=self._table.name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": names[0], "KeyType": "HASH"},
                {"AttributeName": names[1], "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "B"} for name in names],
        )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            description = self._describe()
            if description is not None and description.get("TableStatus") == _ACTIVE:
                return
            if time.monotonic() > until:
                raise SchemaError(f"{self._where}: the table {self._table.name} did not become active in {_PATIENCE} s")
            time.sleep(_PAUSE)

    def _has_ttl(self) -> bool:
        response = self._call(lambda: self._clients.get().describe_time_to_live(TableName=self._table.name))
        description = response.get("TimeToLiveDescription", {})
        if description.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return False
        if (name := description.get("AttributeName")) != TTL:
            raise SchemaError(
                f"{self._where}: the table {self._table.name} cannot be used: its time to live is the attribute {name!r}, "
                f"not {TTL!r}"
            )
        return True

    def _enable_ttl(self) -> None:
        try:
            self._clients.get().update_time_to_live(
                TableName=self._table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL}
            )
        except ClientError as error:  # a second time is refused: somebody else migrates at the same moment
            if code_of(error) != "ValidationException" or not self._has_ttl():
                raise

    def _has_recovery(self) -> bool:
        try:
            response = self._clients.get().describe_continuous_backups(TableName=self._table.name)
        except (ClientError, BotoCoreError) as error:
            if code_of(error) in _NOT_HERE:
                return False
            raise self._table.translated(error) from error
        recovery = response["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return recovery.get("PointInTimeRecoveryStatus") == "ENABLED"

    def _enable_recovery(self) -> None:
        self._clients.get().update_continuous_backups(
            TableName=self._table.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )

    def _write_version(self) -> None:
        item = self._table.models.new(self._table.models.Schema, *keys.SCHEMA, version=HEAD, shards=self._shards)
        with suppress(RefusedError):  # somebody else migrates at the same moment
            self._table.write([self._table.put(item, self._table.is_absent())])

    def _call(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == "ResourceInUseException":  # somebody else makes the table at the same moment
                return self._wait()
            raise self._table.translated(error) from error
