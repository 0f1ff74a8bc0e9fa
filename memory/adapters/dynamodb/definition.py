"""The table as it is to be made: for `CreateTable`, and printed for CloudFormation and Terraform."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from memory.adapters.dynamodb.records import TTL
from memory.adapters.dynamodb.table import key_schema
from memory.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How a table is to be made.

    Attributes:
        point_in_time_recovery: keep continuous backups.
        deletion_protection: refuse to delete the table.
        kms_key: the ARN, id or alias of a customer-managed key; None for a key that DynamoDB owns.
        read_units: provisioned read units; with ``write_units``. None for billing on demand.
        write_units: provisioned write units.
        tags: names and values.
    """

    point_in_time_recovery: bool = False
    deletion_protection: bool = False
    kms_key: str | None = None
    read_units: int | None = None
    write_units: int | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse half of the provisioned capacity."""
        if (self.read_units is None) != (self.write_units is None):
            raise ConfigurationError("provisioned capacity needs both read_units and write_units")
        if any(units is not None and units < 1 for units in (self.read_units, self.write_units)):
            raise ConfigurationError("read_units and write_units must be at least 1")

    def creation(self, key_names: tuple[str, str]) -> dict[str, Any]:
        """Return the arguments of ``CreateTable``, but for the name."""
        made: dict[str, Any] = key_schema(key_names)
        made["BillingMode"] = "PAY_PER_REQUEST" if self.read_units is None else "PROVISIONED"
        if self.read_units is not None:
            made["ProvisionedThroughput"] = {
                "ReadCapacityUnits": self.read_units,
                "WriteCapacityUnits": self.write_units,
            }
        if self.kms_key is not None:
            made["SSESpecification"] = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": self.kms_key}
        if self.deletion_protection:
            made["DeletionProtectionEnabled"] = True
        if self.tags:
            made["Tags"] = [{"Key": name, "Value": value} for name, value in self.tags.items()]
        return made


def cloudformation(table: str, key_names: tuple[str, str], options: TableOptions) -> str:
    """Return a CloudFormation template of the table, as JSON."""
    properties = {"TableName": table, **options.creation(key_names)}
    if (encryption := properties.get("SSESpecification")) is not None:
        encryption["SSEEnabled"] = encryption.pop("Enabled")
    properties["TimeToLiveSpecification"] = {"AttributeName": TTL, "Enabled": True}
    if options.point_in_time_recovery:
        properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": True}
    resource = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {"Conversations": resource | {"Properties": properties}},
    }
    return json.dumps(template, indent=2)


def terraform(table: str, key_names: tuple[str, str], options: TableOptions) -> str:
    """Return a Terraform resource of the table."""
    made = options.creation(key_names)
    body: dict[str, Any] = {
        "name": table,
        "hash_key": key_names[0],
        "range_key": key_names[1],
        "billing_mode": made["BillingMode"],
        "read_capacity": options.read_units,
        "write_capacity": options.write_units,
        "deletion_protection_enabled": options.deletion_protection or None,
        "attribute": [{"name": name, "type": "S"} for name in key_names],
        "ttl": {"attribute_name": TTL, "enabled": True},
        "point_in_time_recovery": {"enabled": True} if options.point_in_time_recovery else None,
        "server_side_encryption": {"enabled": True, "kms_key_arn": options.kms_key} if options.kms_key else None,
        "tags =": {json.dumps(name): value for name, value in options.tags.items()} or None,
    }
    lines = "\n".join(_hcl(name, value) for name, value in body.items() if value is not None)
    return f'resource "aws_dynamodb_table" "conversations" {{\n{lines}\n}}'


FORMATS: Final = {"cloudformation": cloudformation, "terraform": terraform}
"""How a table can be printed."""


def _hcl(name: str, value: object, indent: str = "  ") -> str:
    """Return an attribute, or blocks, as Terraform reads them: values as in JSON, but ``${`` and ``%{`` begin an expression."""
    if isinstance(value, list):
        return "\n".join(_hcl(name, each, indent) for each in value)
    if isinstance(value, dict):
        lines = "\n".join(_hcl(each, inner, indent + "  ") for each, inner in value.items())
        return f"\n{indent}{name} {{\n{lines}\n{indent}}}"
    return f"{indent}{name} = {json.dumps(value).replace('${', '$${').replace('%{', '%%{')}"
