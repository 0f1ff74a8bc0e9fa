"""The table: creates it, prints its definition for other tools, checks an existing table, and stores the layout's version."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from botocore.exceptions import BotoCoreError

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.records import TTL, Item
from memory.adapters.dynamodb.table import IS_ABSENT, RefusedError, Table
from memory.errors import ConfigurationError, InvalidValueError, SchemaError, StoreUnavailableError
from memory.port.repository import Progress, SchemaStatus

HEAD: Final = "0002"
"""The version of the layout that this code writes (see docs/dynamodb.md). Version 0001 had binary keys."""

_PATIENCE: Final = 600  # seconds to wait for the table to become active

_TERRAFORM: Final = """\
resource "aws_dynamodb_table" "conversations" {
  name         = TABLE
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"
  range_key    = "sk"

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }
}"""


def creation(table: str) -> dict[str, Any]:
    """Return the arguments with which ``CreateTable`` creates a table, billed on demand."""
    return {
        "TableName": table,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        "BillingMode": "PAY_PER_REQUEST",
    }


def definition(table: str, format: str) -> str:
    """Return the definition of a table in the format ``cloudformation`` or ``terraform``."""
    if format == "terraform":
        return _TERRAFORM.replace("TABLE", json.dumps(table))
    if format != "cloudformation":
        raise ConfigurationError(f"a DynamoDB table can be printed as cloudformation or terraform, not as {format!r}")
    properties = creation(table) | {"TimeToLiveSpecification": {"AttributeName": TTL, "Enabled": True}}
    resource = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    conversations = {"Conversations": resource | {"Properties": properties}}
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": conversations}, indent=2)


class Schema:
    """The schema of one table."""

    def __init__(self, table: Table, where: object, options: Mapping[str, Any]) -> None:
        self._table = table
        self._where = where
        self._options = options

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
        return SchemaStatus(None if item is None else item.text("version"), HEAD)

    def steps(self) -> list[tuple[str, Callable[[], object]]]:
        """Return the steps of `migrate`: their descriptions, and the functions that perform them.

        Raises:
            SchemaError: the existing table cannot be used; the message says why.
        """
        name, description = self._table.name, self._describe()
        steps: list[tuple[str, Callable[[], object]]] = []
        if description is None:
            steps.append((f"create the table {name}, and wait for it", self._create))
        else:
            self._check_keys(description)
            if (state := description["TableStatus"]) != "ACTIVE":
                steps.append((f"wait for the table {name}: it is {state}", self._wait))
        if description is None or not self._has_ttl():
            steps.append((f"enable time to live, which deletes old receipts, on the attribute {TTL}", self._enable_ttl))
        status = SchemaStatus(None, HEAD) if description is None else self.status()
        if status.current is not None and status.current > HEAD:
            raise SchemaError(f"{self._where}: {status.advice()}")
        if status.current is None:
            steps.append((f"write the schema's version, {HEAD}, into the table", self._put_version))
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
        self._table.ask(
            "create_table", unless="ResourceInUseException", **creation(self._table.name) | dict(self._options)
        )
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

    def _put_version(self) -> None:
        item = Item(keys.SCHEMA, {"version": {"S": HEAD}})
        with suppress(RefusedError):  # a concurrent migration has written the item
            self._table.write([self._table.put(item, IS_ABSENT)])
