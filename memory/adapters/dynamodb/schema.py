"""The table: creates it, checks an existing one, and stores the version of the layout and the number of shards."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.records import TTL, Item
from memory.adapters.dynamodb.table import IS_ABSENT, RefusedError, Table, has
from memory.adapters.dynamodb.table_options import TableOptions
from memory.adapters.dynamodb.upgrading import upgrade
from memory.domain.values import now
from memory.errors import InvalidValueError, SchemaError, StoreUnavailableError
from memory.port.repository import Progress, SchemaStatus

HEAD: Final = "0003"
"""The version of the layout that this code writes (see docs/dynamodb.md). Version 0001 had binary keys."""

MOST_SHARDS: Final = 100

_PATIENCE: Final = 600  # seconds to wait for the table to become active
_READ_AGAIN_AFTER: Final = 60.0  # seconds for which a process caches the number of shards
_GRACE: Final = 120  # seconds before new shards are written to, so that all processes have read the new number


class Schema:
    """The schema of one table."""

    def __init__(self, table: Table, where: object, shards: int, options: TableOptions) -> None:
        self._table = table
        self._where = where
        self._wanted = shards
        self._options = options
        self._item: Item | None = None
        self._read_at = 0.0  # of time.monotonic()

    def status(self) -> SchemaStatus:
        """Return the version of the table and that of this code; takes one request.

        Raises:
            SchemaError: the table has other keys.
        """
        try:
            item = self._table.get(keys.SCHEMA)
        except SchemaError:
            return SchemaStatus(None, HEAD)  # the table does not exist
        except InvalidValueError:  # the table has other keys
            self._check_keys(self._describe() or {})
            raise
        if item is None:
            return SchemaStatus(None, HEAD)
        self._item, self._read_at = item, time.monotonic()
        return SchemaStatus(item.text("version"), HEAD)

    def shards(self, *, to_write: bool = False) -> int:
        """Return the number of partitions of each list, or the number over which new conversations are spread.

        Raises:
            SchemaError: the schema does not exist yet.
        """
        if self._item is None or time.monotonic() - self._read_at > _READ_AGAIN_AFTER:
            status = self.status()
            if self._item is None or status.current is None:
                raise SchemaError(f"{self._where}: {status.advice()}")
        item = self._item
        shards, before = item.number("shards"), item.number("shards_before")
        if not 1 <= before <= shards <= MOST_SHARDS:
            raise item.corrupt(f"it has {shards} shards")
        return before if to_write and now() < item.number("shards_since") else shards

    def steps(self) -> list[tuple[str, Callable[[], object]]]:
        """Return the steps of `migrate`: their descriptions, and the functions that perform them.

        Raises:
            SchemaError: the existing table cannot be used; the message says why.
        """
        name, description, options = self._table.name, self._describe(), self._options
        steps: list[tuple[str, Callable[[], object]]] = []
        if description is None:
            billed = "billed on demand" if options.read_units is None else "with provisioned capacity"
            steps.append((f"create the table {name}, {billed}, and wait for it", self._create))
        else:
            self._check_keys(description)
            if (state := description["TableStatus"]) != "ACTIVE":
                steps.append((f"wait for the table {name}: it is {state}", self._wait))
        if description is None or not self._has_ttl():
            steps.append((f"enable time to live, which deletes old receipts, on the attribute {TTL}", self._enable_ttl))
        if options.point_in_time_recovery and (description is None or not self._has_recovery()):
            steps.append(("enable point-in-time recovery", self._enable_recovery))
        status = SchemaStatus(None, HEAD) if description is None else self.status()
        if status.current is not None and status.current > HEAD:
            raise SchemaError(f"{self._where}: {status.advice()}")
        if status.current is None:
            new = partial(self._put, IS_ABSENT, shards=self._wanted, before=self._wanted, since=0)
            steps.append((f"write the schema's version, {HEAD}, into the table", new))
            return steps
        if status.current < HEAD:
            words = f"list the conversations by last_run_at, and write the schema's version, {HEAD}, into the table"
            steps.append((words, self._upgrade))
        if self._wanted > (before := self.shards()):
            unchanged, since = has("shards", {"N": str(before)}), now() + _GRACE * 1_000_000
            words = f"spread new conversations over {self._wanted} partitions instead of {before}"
            steps.append((words, partial(self._put, unchanged, shards=self._wanted, before=before, since=since)))
        return steps

    def migrate(self, progress: Progress) -> SchemaStatus:
        """Create or complete the table; report each step before performing it.

        Raises:
            SchemaError: the existing table cannot be used, or has a newer version.
        """
        steps = self.steps()
        for number, (words, step) in enumerate(steps):
            progress(words, number / len(steps))
            step()
        return self.status()

    def _ask(self, operation: str, *, unless: str = "", **arguments: object) -> Any:
        return self._table.ask(operation, unless=unless, TableName=self._table.name, **arguments)

    def _describe(self) -> dict[str, Any] | None:
        answer = self._ask("describe_table", unless="ResourceNotFoundException")
        return None if answer is None else dict(answer["Table"])

    def _check_keys(self, description: dict[str, Any]) -> None:
        """Raise `SchemaError` if the table has other keys; the message names them."""
        types = {each["AttributeName"]: each["AttributeType"] for each in description.get("AttributeDefinitions", ())}
        found = [f"{(name := each['AttributeName'])} ({types[name]})" for each in description.get("KeySchema", ())]
        if found != ["pk (S)", "sk (S)"]:
            raise self._unusable(
                f"its keys are {', '.join(found)}, not pk (S), sk (S). A table with binary keys (B) was made "
                "by an older release: export it with that release, and import the file into a new table with this release"
            )

    def _unusable(self, why: str) -> SchemaError:
        return SchemaError(f"{self._where}: the table {self._table.name} cannot be used: {why}")

    def _create(self) -> None:
        # DynamoDB returns ResourceInUseException if another process is creating the table.
        arguments = self._options.creation(self._table.name)
        self._table.ask("create_table", unless="ResourceInUseException", **arguments)
        self._wait()

    def _wait(self) -> None:
        waiter = self._table.clients.get().get_waiter("table_exists")
        try:
            waiter.wait(TableName=self._table.name, WaiterConfig={"Delay": 1, "MaxAttempts": _PATIENCE})
        except BotoCoreError as error:
            raise self._table.failure_of(error).error(self._where) from error

    def _has_ttl(self) -> bool:
        description = self._ask("describe_time_to_live").get("TimeToLiveDescription", {})
        if description.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return False
        if (name := description.get("AttributeName")) != TTL:
            raise self._unusable(f"its time to live uses the attribute {name!r}, not {TTL!r}")
        return True

    def _enable_ttl(self) -> None:
        wanted = {"Enabled": True, "AttributeName": TTL}
        answer = self._ask("update_time_to_live", unless="ValidationException", TimeToLiveSpecification=wanted)
        if answer is None and not self._has_ttl():  # DynamoDB rejects the update if a concurrent migration made it
            raise StoreUnavailableError(f"{self._where}: the table's time to live is being changed; run migrate again")

    def _has_recovery(self) -> bool:
        answer = self._ask("describe_continuous_backups", unless="UnknownOperationException")  # from DynamoDB Local
        recovery = (answer or {}).get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
        return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _enable_recovery(self) -> None:
        wanted = {"PointInTimeRecoveryEnabled": True}
        self._ask("update_continuous_backups", PointInTimeRecoverySpecification=wanted)

    def _upgrade(self) -> None:
        item = self._item
        assert item is not None  # noqa: S101  # `steps` has read it
        upgrade(self._table, shards := item.number("shards"))
        before, since = item.number("shards_before"), item.number("shards_since")
        self._put(has("shards", {"N": str(shards)}), shards=shards, before=before, since=since)

    def _put(self, condition: dict[str, Any], *, shards: int, before: int, since: int) -> None:
        numbers = {"shards": shards, "shards_before": before, "shards_since": since}
        values: dict[str, dict[str, Any]] = {name: {"N": str(number)} for name, number in numbers.items()}
        with suppress(RefusedError):  # a concurrent migration has written the item
            self._table.write([self._table.put(Item(keys.SCHEMA, {"version": {"S": HEAD}, **values}), condition)])
