"""The table: how it is made, what must be true of an existing one, and the version of its layout."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.definition import TableOptions
from memory.adapters.dynamodb.errors import code_of
from memory.adapters.dynamodb.records import TTL, Item, number_of, text_of
from memory.adapters.dynamodb.table import RefusedError, Table
from memory.domain.values import now
from memory.errors import CorruptRecordError, InvalidValueError, SchemaError, StoreUnavailableError
from memory.port.repository import Progress, SchemaStatus

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef

HEAD: Final = "0002"
"""The version of the layout that this code writes: docs/dynamodb.md. Version 0001 had binary keys."""

MOST_SHARDS: Final = 100

_ACTIVE: Final = "ACTIVE"
_PATIENCE: Final = 600  # seconds
_READ_AGAIN_AFTER: Final = 60.0  # seconds that a process relies on the number of shards it has read
_GRACE: Final = 120  # seconds before new shards are written to, so that every process has read that there are more


class Shards(NamedTuple):
    """Over how many partitions each list, and the entries of each metadata path, are spread."""

    writing: int
    reading: int


class Schema:
    """The schema of one table."""

    def __init__(self, table: Table, clients: Clients, where: object, shards: int, options: TableOptions) -> None:
        self._table = table
        self._clients = clients
        self._where = where
        self._wanted = shards
        self._options = options
        self._shards: tuple[float, Item] | None = None

    def status(self) -> SchemaStatus:
        """Return the version in the table, and this code's: one request.

        Raises:
            SchemaError: the table is not one that this repository can use as it is set up.
        """
        try:
            item = self._table.get(keys.SCHEMA)
        except SchemaError:
            return SchemaStatus(None, HEAD)  # there is no table
        except InvalidValueError:  # the table has other keys
            self._check(self._describe() or {})
            raise
        if item is None:
            return SchemaStatus(None, HEAD)
        self._shards = time.monotonic(), item
        return SchemaStatus(text_of(item, "version"), HEAD)

    def shards(self) -> Shards:
        """Return the numbers of shards that apply now.

        Raises:
            SchemaError: there is no schema yet.
        """
        if self._shards is None or time.monotonic() - self._shards[0] > _READ_AGAIN_AFTER:
            status = self.status()
            if self._shards is None or status.current is None:
                raise SchemaError(f"{self._where}: {status.advice()}")
        item = self._shards[1]
        largest, before = number_of(item, "shards"), number_of(item, "shards_before")
        if not 1 <= before <= largest <= MOST_SHARDS:
            raise CorruptRecordError(f"the item {keys.SCHEMA} is stored but cannot be read: {largest} shards")
        return Shards(largest if number_of(item, "shards_since") <= now() else before, largest)

    def steps(self) -> list[tuple[str, Callable[[], object]]]:
        """Return what `migrate` would do, in words, and the functions that do it.

        Raises:
            SchemaError: there is a table that cannot be used; the message says what is wrong with it.
        """
        name, description = self._table.name, self._describe()
        steps: list[tuple[str, Callable[[], object]]] = []
        if description is None:
            billed = "billed on demand" if self._options.read_units is None else "with provisioned capacity"
            steps.append((f"create the table {name}, {billed}, and wait for it", self._create))
        else:
            self._check(description)
            if (state := description.get("TableStatus")) != _ACTIVE:
                steps.append((f"wait for the table {name}: it is {state}", self._wait))
        if description is None or not self._has_ttl():
            steps.append((f"let DynamoDB delete old receipts, by the attribute {TTL}", self._enable_ttl))
        if self._options.point_in_time_recovery and (description is None or not self._has_recovery()):
            steps.append(("turn on point-in-time recovery", self._enable_recovery))
        status = SchemaStatus(None, HEAD) if description is None else self.status()
        if status.current is not None and status.current > HEAD:
            raise SchemaError(f"{self._where}: {status.advice()}")
        if status.current is None:
            steps.append((f"write the schema's version, {HEAD}, into the table", self._write_version))
        elif self._wanted > (reading := self.shards().reading):
            words = f"spread new conversations over {self._wanted} partitions instead of {reading}"
            steps.append((words, self._add_shards))
        return steps

    def migrate(self, progress: Progress) -> SchemaStatus:
        """Make the table, or what it lacks; report each step before it is done.

        Raises:
            SchemaError: there is a table that cannot be used, or it has a newer version.
        """
        steps = self.steps()
        for number, (words, step) in enumerate(steps):
            progress(words, number / len(steps))
            step()
        return self.status()

    # the table

    def _ask(self, operation: str, *, unless: str = "", **options: object) -> Any:
        """Return DynamoDB's answer to an operation on the table; None if it is an error of one code that is expected."""
        client = self._clients.get()
        try:
            return getattr(client, operation)(TableName=self._table.name, **options)
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == unless:
                return None
            raise self._table.translated(error) from error

    def _describe(self) -> "TableDescriptionTypeDef | None":
        answer = self._ask("describe_table", unless="ResourceNotFoundException")
        return None if answer is None else cast("TableDescriptionTypeDef", answer["Table"])

    def _check(self, description: "TableDescriptionTypeDef") -> None:
        """Refuse a table with other keys, and say what is wrong with them."""
        types = {each["AttributeName"]: each["AttributeType"] for each in description.get("AttributeDefinitions", ())}
        found: dict[str, str] = {each["KeyType"]: each["AttributeName"] for each in description.get("KeySchema", ())}
        wrong = []
        whats = ("HASH", "partition key"), ("RANGE", "sort key")
        for (kind, what), name in zip(whats, self._table.key_names, strict=True):
            has = found.get(kind)
            if has is None:
                wrong.append(f"it has no {what}")
            elif has != name:
                wrong.append(f"its {what} is {has!r}, not {name!r}: open it with {what.replace(' ', '_')}={has}")
            elif types.get(has) != "S":
                wrong.append(f"its {what} {has!r} has type {types.get(has)}, not S (string)")
        if wrong and set(types.values()) == {"B"}:
            wrong.append(
                "tables with binary keys were made by an older release: export them with that release (`memory export`), and "
                "import the file into a new table with this one"
            )
        self._refuse_if("; ".join(wrong))

    def _refuse_if(self, wrong: str) -> None:
        if wrong:
            raise SchemaError(f"{self._where}: the table {self._table.name} cannot be used: {wrong}")

    def _create(self) -> None:
        # Refused if somebody else creates it at the same moment.
        self._ask("create_table", unless="ResourceInUseException", **self._options.creation(self._table.key_names))
        self._wait()

    def _wait(self) -> None:
        waiter = self._clients.get().get_waiter("table_exists")
        try:
            waiter.wait(TableName=self._table.name, WaiterConfig={"Delay": 1, "MaxAttempts": _PATIENCE})
        except BotoCoreError as error:
            raise self._table.translated(error) from error

    def _has_ttl(self) -> bool:
        description = self._ask("describe_time_to_live").get("TimeToLiveDescription", {})
        if description.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return False
        if (name := description.get("AttributeName")) != TTL:
            self._refuse_if(f"its time to live is the attribute {name!r}, not {TTL!r}")
        return True

    def _enable_ttl(self) -> None:
        specification = {"Enabled": True, "AttributeName": TTL}
        answer = self._ask("update_time_to_live", unless="ValidationException", TimeToLiveSpecification=specification)
        if (
            answer is None and not self._has_ttl()
        ):  # a second time is refused: somebody else migrates at the same moment
            raise StoreUnavailableError(f"{self._where}: the time to live of the table is being changed; migrate again")

    def _has_recovery(self) -> bool:
        # DynamoDB Local has no backups.
        answer = self._ask("describe_continuous_backups", unless="UnknownOperationException") or {}
        recovery = answer.get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
        return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _enable_recovery(self) -> None:
        specification = {"PointInTimeRecoveryEnabled": True}
        self._ask("update_continuous_backups", PointInTimeRecoverySpecification=specification)

    def _write_version(self) -> None:
        self._put(self._wanted, self._wanted, 0, self._table.is_absent())

    def _add_shards(self) -> None:
        before = self.shards().reading
        self._put(self._wanted, before, now() + _GRACE * 1_000_000, Path("shards") == before)

    def _put(self, shards: int, before: int, since: int, condition: Condition) -> None:
        numbers = {"shards": shards, "shards_before": before, "shards_since": since}
        values = {"version": {"S": HEAD}, **{name: {"N": str(number)} for name, number in numbers.items()}}
        with suppress(RefusedError):  # somebody else migrates at the same moment
            self._table.write([self._table.put(Item(keys.SCHEMA, values), condition)])
