"""Receipts: a change set that is committed a second time writes nothing, and returns the receipt of the first commit.

A receipt is an item of its own, stored by the commit's transaction on condition that there is none. DynamoDB deletes it by its
time to live, in all namespaces; until it does, a receipt older than a day counts as deleted.
"""

from typing import Final

from pynamodb.expressions.operand import Path

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.records import TTL, Item, number, number_of, text, text_of
from memory.adapters.dynamodb.table import Action, Table
from memory.domain.values import now
from memory.port.changes import Receipt

_KEPT: Final = 24 * 3600  # seconds


def receipt_action(table: Table, namespace: str, receipt: Receipt) -> Action:
    """Return the action that stores a receipt, and refuses a change set that was written before."""
    seconds = now() // 1_000_000
    key = keys.receipt(namespace, receipt.token)
    unwritten = table.is_absent() | (Path(TTL) <= seconds)
    return table.put(Item(key, {"receipt": text(receipt.dump()), TTL: number(seconds + _KEPT)}), unwritten)


def find_receipt(table: Table, namespace: str, token: str) -> Receipt | None:
    """Return the receipt of a change set; None if it was not written, or more than a day ago."""
    item = table.get(keys.receipt(namespace, token))
    if item is None or number_of(item, TTL) <= now() // 1_000_000:
        return None
    return read_receipt(token, item)


def read_receipt(token: str, item: Item) -> Receipt:
    """Return the receipt that an item contains."""
    return Receipt.load(token, text_of(item, "receipt"))
