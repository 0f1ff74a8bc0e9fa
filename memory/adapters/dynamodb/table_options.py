"""The options of a table, as the arguments that create it, and as its definition for CloudFormation and Terraform."""

import json
from dataclasses import dataclass, field
from typing import Any

from memory.adapters.dynamodb.records import TTL
from memory.errors import ConfigurationError


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

    def creation(self, table: str) -> dict[str, Any]:
        """Return the arguments with which ``CreateTable`` creates a table."""
        made = {
            "TableName": table,
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            "BillingMode": "PROVISIONED" if self.read_units else "PAY_PER_REQUEST",
            "ProvisionedThroughput": self.read_units
            and {"ReadCapacityUnits": self.read_units, "WriteCapacityUnits": self.write_units},
            "SSESpecification": self.kms_key and {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": self.kms_key},
            "DeletionProtectionEnabled": self.deletion_protection,
            "Tags": [{"Key": name, "Value": value} for name, value in self.tags.items()],
        }
        return {name: value for name, value in made.items() if value}

    def definition(self, table: str, format: str) -> str:
        """Return the definition of a table in the format ``cloudformation`` or ``terraform``."""
        if format == "cloudformation":
            return self._cloudformation(table)
        if format == "terraform":
            return self._terraform(table)
        raise ConfigurationError(f"a DynamoDB table can be printed as cloudformation or terraform, not as {format!r}")

    def _cloudformation(self, table: str) -> str:
        properties = self.creation(table)
        if (encryption := properties.get("SSESpecification")) is not None:
            encryption["SSEEnabled"] = encryption.pop("Enabled")
        properties["TimeToLiveSpecification"] = {"AttributeName": TTL, "Enabled": True}
        if self.point_in_time_recovery:
            properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": True}
        resource = {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
        conversations = {"Conversations": resource | {"Properties": properties}}
        return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": conversations}, indent=2)

    def _terraform(self, table: str) -> str:
        body: dict[str, Any] = {
            "name": table,
            "hash_key": "pk",
            "range_key": "sk",
            "billing_mode": self.creation(table)["BillingMode"],
            "read_capacity": self.read_units,
            "write_capacity": self.write_units,
            "deletion_protection_enabled": self.deletion_protection,
            "attribute": [{"name": name, "type": "S"} for name in ("pk", "sk")],
            "ttl": {"attribute_name": TTL, "enabled": True},
            "point_in_time_recovery": self.point_in_time_recovery and {"enabled": True},
            "server_side_encryption": self.kms_key and {"enabled": True, "kms_key_arn": self.kms_key},
            "tags =": {json.dumps(name): value for name, value in self.tags.items()},
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
