"""The table: creates it, prints its definition for other tools, checks an existing table, and stores the layout's version."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.errors import code_of
from memory.adapters.dynamodb.records import TTL, Item
from memory.adapters.dynamodb.table import RefusedError, Table
from memory.domain.values import now
from memory.errors import ConfigurationError, InvalidValueError, SchemaError, StoreUnavailableError
from memory.port.repository import Progress, SchemaStatus

HEAD: Final = "0002"
"""The version of the layout that this code writes (see docs/dynamodb.md). Version 0001 had binary keys."""

MOST_SHARDS: Final = 100

_PATIENCE: Final = 600  # seconds to wait for the table to become active
_READ_AGAIN_AFTER: Final = 60.0  # seconds for which a process caches the number of shards
_GRACE: Final = 120  # seconds before new shards are written to, so that all processes have read the new number


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """Options for creating a table.

    Attributes:
        point_in_time_recovery: enable continuous backups.
        deletion_protection: protect the table from deletion.
        kms_key: the ARN, id or alias of a customer-managed key; None for a key that DynamoDB owns.
        read_units: provisioned read units, together with ``write_units``; None for on-demand billing.
        write_units: provisioned write units.
        tags: the names and values of tags.
    """

    point_in_time_recovery: bool = False
    deletion_protection: bool = False
    kms_key: str | None = None
    read_units: int | None = None
    write_units: int | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that read and write units are given together and are positive."""
        if (self.read_units is None) != (self.write_units is None):
            raise ConfigurationError("provisioned capacity needs both read_units and write_units")
        if any(units is not None and units < 1 for units in (self.read_units, self.write_units)):
            raise ConfigurationError("read_units and write_units must be at least 1")

    def creation(self, key_names: tuple[str, str]) -> dict[str, Any]:
        """Return the arguments of ``CreateTable``, except the table's name."""
        kinds = zip(key_names, ("HASH", "RANGE"), strict=True)
        encryption = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": self.kms_key}
        made = {
            "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in kinds],
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in key_names],
            "BillingMode": "PROVISIONED" if self.read_units else "PAY_PER_REQUEST",
            "ProvisionedThroughput": self.read_units
            and {"ReadCapacityUnits": self.read_units, "WriteCapacityUnits": self.write_units},
            "SSESpecification": self.kms_key and encryption,
            "DeletionProtectionEnabled": self.deletion_protection,
            "Tags": [{"Key": name, "Value": value} for name, value in self.tags.items()],
        }
        return {name: value for name, value in made.items() if value}


def cloudformation(table: str, key_names: tuple[str, str], options: TableOptions) -> str:
    """Return a CloudFormation template of the table, as JSON."""
    properties = {"TableName": table, **options.creation(key_names)}
    if (encryption := properties.get("SSESpecification")) is not None:
        encryption["SSEEnabled"] = encryption.pop("Enabled")
    properties["TimeToLiveSpecification"] = {"AttributeName": TTL, "Enabled": True}
    if options.point_in_time_recovery:
        properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": True}
    resource = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    conversations = {"Conversations": resource | {"Properties": properties}}
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": conversations}, indent=2)


def terraform(table: str, key_names: tuple[str, str], options: TableOptions) -> str:
    """Return a Terraform resource of the table."""
    body: dict[str, Any] = {
        "name": table,
        "hash_key": key_names[0],
        "range_key": key_names[1],
        "billing_mode": options.creation(key_names)["BillingMode"],
        "read_capacity": options.read_units,
        "write_capacity": options.write_units,
        "deletion_protection_enabled": options.deletion_protection,
        "attribute": [{"name": name, "type": "S"} for name in key_names],
        "ttl": {"attribute_name": TTL, "enabled": True},
        "point_in_time_recovery": options.point_in_time_recovery and {"enabled": True},
        "server_side_encryption": options.kms_key and {"enabled": True, "kms_key_arn": options.kms_key},
        "tags =": {json.dumps(name): value for name, value in options.tags.items()},
    }
    lines = "\n".join(_hcl(name, value) for name, value in body.items() if value)
    return f'resource "aws_dynamodb_table" "conversations" {{\n{lines}\n}}'


def _hcl(name: str, value: object, indent: str = "  ") -> str:
    """Return an attribute or blocks in Terraform's syntax: values are JSON, with ``${`` and ``%{`` escaped."""
    if isinstance(value, list):
        return "\n".join(_hcl(name, each, indent) for each in value)
    if isinstance(value, dict):
        lines = "\n".join(_hcl(each, inner, indent + "  ") for each, inner in value.items())
        return f"\n{indent}{name} {{\n{lines}\n{indent}}}"
    return f"{indent}{name} = {json.dumps(value).replace('${', '$${').replace('%{', '%%{')}"


FORMATS: Final = {"cloudformation": cloudformation, "terraform": terraform}
"""The functions that print the definition of a table, by format."""


class Shards(NamedTuple):
    """The number of partitions over which each list, and the entries of each metadata path, are spread."""

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
        """Return the version of the table and that of this code; takes one request.

        Raises:
            SchemaError: the table has other keys than this repository is configured with.
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
        self._shards = time.monotonic(), item
        return SchemaStatus(item.text("version"), HEAD)

    def shards(self) -> Shards:
        """Return the current numbers of shards.

        Raises:
            SchemaError: the schema does not exist yet.
        """
        if self._shards is None or time.monotonic() - self._shards[0] > _READ_AGAIN_AFTER:
            status = self.status()
            if self._shards is None or status.current is None:
                raise SchemaError(f"{self._where}: {status.advice()}")
        item = self._shards[1]
        largest, before = item.number("shards"), item.number("shards_before")
        if not 1 <= before <= largest <= MOST_SHARDS:
            raise item.corrupt(f"it has {largest} shards")
        return Shards(largest if item.number("shards_since") <= now() else before, largest)

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
            new = partial(self._put, self._table.is_absent(), before=self._wanted, since=0)
            steps.append((f"write the schema's version, {HEAD}, into the table", new))
        elif self._wanted > (before := self.shards().reading):
            unchanged, since = self._table.has("shards", {"N": str(before)}), now() + _GRACE * 1_000_000
            words = f"spread new conversations over {self._wanted} partitions instead of {before}"
            steps.append((words, partial(self._put, unchanged, before=before, since=since)))
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

    def _ask(self, operation: str, *, unless: str = "", **options: object) -> Any:
        """Return the response to an operation on the table, or None if it fails with the error code ``unless``."""
        client = self._clients.get()
        try:
            return getattr(client, operation)(TableName=self._table.name, **options)
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == unless:
                return None
            raise self._table.failure_of(error).error(self._where) from error

    def _describe(self) -> dict[str, Any] | None:
        answer = self._ask("describe_table", unless="ResourceNotFoundException")
        return None if answer is None else dict(answer["Table"])

    def _check_keys(self, description: dict[str, Any]) -> None:
        """Raise `SchemaError` if the table has other keys; the message names them."""
        types = {each["AttributeName"]: each["AttributeType"] for each in description.get("AttributeDefinitions", ())}
        found = [f"{(name := each['AttributeName'])} ({types[name]})" for each in description.get("KeySchema", ())]
        wanted = [f"{name} (S)" for name in self._table.key_names]
        if found != wanted:
            raise self._unusable(
                f"its keys are {', '.join(found)}, not {', '.join(wanted)}. If both are strings (S), open the table "
                "with partition_key=NAME and sort_key=NAME. A table with binary keys (B) was made by an older release: export it "
                "with that release (`memory export`), and import the file into a new table with this release"
            )

    def _unusable(self, why: str) -> SchemaError:
        return SchemaError(f"{self._where}: the table {self._table.name} cannot be used: {why}")

    def _create(self) -> None:
        # DynamoDB returns ResourceInUseException if another process is creating the table.
        self._ask("create_table", unless="ResourceInUseException", **self._options.creation(self._table.key_names))
        self._wait()

    def _wait(self) -> None:
        waiter = self._clients.get().get_waiter("table_exists")
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

    def _put(self, condition: dict[str, Any], *, before: int, since: int) -> None:
        numbers = {"shards": self._wanted, "shards_before": before, "shards_since": since}
        values: dict[str, dict[str, Any]] = {name: {"N": str(number)} for name, number in numbers.items()}
        with suppress(RefusedError):  # a concurrent migration has written the item
            self._table.write([self._table.put(Item(keys.SCHEMA, {"version": {"S": HEAD}, **values}), condition)])
