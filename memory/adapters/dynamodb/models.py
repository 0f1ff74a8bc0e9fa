"""PynamoDB models of the items in a conversation's partition, and functions for their keys.

Subclass a model and define a ``Meta`` with the table's name, region and credentials, as described in PynamoDB's documentation:

    class Conversations(ConversationItem):
        class Meta:
            table_name = "conversations"
            region = "eu-central-1"

Use them for reading only: items written without the store are not indexed and are missing from its lists. The store does not use
the models, because they take a third of the time of a query of 20 runs; a test checks that both read the same values.
"""

from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from memory.adapters.dynamodb import keys
from memory.domain.values import key_of

STATE = keys.STATE
"""The sort key of a conversation's item, in its partition."""


def conversation_key(namespace: str, conversation_id: str) -> str:
    """Return the partition key of a conversation and its runs.

    >>> conversation_key("default", "support-42")
    'conversation#default#support-42'
    """
    return keys.partition("conversation", namespace, key_of(conversation_id))


class ConversationItem(Model):
    """A conversation: the item at (`conversation_key`, `STATE`). Times are microseconds since 1970.

    If ``version`` is None, the conversation does not exist: it was removed, or a commit was interrupted while creating it.

    Attributes:
        id: the conversation's id; `key_of` it if the conversation does not exist.
        stamp: changes with every write.
        version, incarnation, run_count, last_position, created_at, updated_at, last_run_at, expires_at: as in `Conversation`.
        expires_after: the time by which each append moves ``expires_at`` ahead, in microseconds.
        first_open: no run at a lower position is open; None if no run is open.
        first_position: runs at lower positions are removed.
        metadata: JSON; None if it is too long for this item and stored in parts.
        parts, part_count: the name and number of the parts of the metadata: the items at ``part#NAME#0000`` and so on.
        shard: the shard of the lists that contain the conversation.
        unswept: whether a purge has items to delete, or a large commit is writing runs.
    """

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    id = UnicodeAttribute()
    stamp = UnicodeAttribute()
    version = NumberAttribute(null=True)
    incarnation = UnicodeAttribute(null=True)
    run_count = NumberAttribute(null=True)
    first_position = NumberAttribute(null=True)
    last_position = NumberAttribute(null=True)
    created_at = NumberAttribute(null=True)
    updated_at = NumberAttribute(null=True)
    last_run_at = NumberAttribute(null=True)
    expires_at = NumberAttribute(null=True)
    expires_after = NumberAttribute(null=True)
    first_open = NumberAttribute(null=True)
    metadata = UnicodeAttribute(null=True)
    parts = UnicodeAttribute(null=True)
    part_count = NumberAttribute(null=True)
    shard = NumberAttribute(null=True)
    unswept = BooleanAttribute(null=True)

    def run_keys(self) -> tuple[str, str]:
        """Return the sort keys of the first and last run, for ``RunItem.sk.between``. Runs outside them are removed."""
        low, high = int(self.first_position or 1), int(self.last_position or 0)
        return keys.run(self.incarnation or "", low), keys.run(self.incarnation or "", max(low, high))


class RunItem(Model):
    """A run. ``input``, ``output`` and ``metadata`` are JSON, or None if they are too large for one item and stored in parts.

    Attributes:
        id: the run's id.
        created_at: microseconds since 1970.
        input, output, metadata: as in `Run`.
        parts, part_count: the name and number of its parts: the items at ``part#NAME#0000`` and so on.
        sizes: the lengths of input, output and metadata in the parts, in characters.
        open_shard: the shard of the list of open runs that contains the run; None if the run is not open.
    """

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    id = UnicodeAttribute()
    created_at = NumberAttribute()
    input = UnicodeAttribute(null=True)
    output = UnicodeAttribute(null=True)
    metadata = UnicodeAttribute(null=True)
    parts = UnicodeAttribute(null=True)
    part_count = NumberAttribute(null=True)
    sizes = UnicodeAttribute(null=True)
    open_shard = NumberAttribute(null=True)

    @property
    def position(self) -> int:
        """The run's position in its conversation."""
        return keys.position_of(self.sk)

    @property
    def is_open(self) -> bool:
        """Whether the run's output is not final."""
        return self.open_shard is not None
