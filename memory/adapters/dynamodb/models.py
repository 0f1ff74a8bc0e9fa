"""Models for PynamoDB's users: what a conversation's partition contains, and the keys that lead there.

Subclass a model, and give it a ``Meta`` with the table's name, region and credentials, as PynamoDB's documentation says:

    class Conversations(ConversationItem):
        class Meta:
            table_name = "conversations"
            region = "eu-central-1"

They are for reading: what is written past the store is not indexed, and is missing from its lists. The store itself does not read
by them, because PynamoDB's models take a third of the time of a query of 20 runs; a test holds that both read the same.
"""

from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from memory.adapters.dynamodb import keys

STATE = keys.STATE
"""The sort key of a conversation's item, in its partition."""


def conversation_key(namespace: str, conversation_id: str) -> str:
    """Return the partition key of a conversation and its runs.

    >>> conversation_key("default", "support-42")
    'conversation#default#support-42'
    """
    return keys.partition("conversation", namespace, conversation_id)


class ConversationItem(Model):
    """A conversation: the item at (`conversation_key`, `STATE`). Times are microseconds since 1970.

    Without a ``version`` there is no conversation: it was removed, or a commit broke off while it made one.

    Attributes:
        id: the conversation's id.
        stamp: changes with every write.
        version, incarnation, run_count, last_position, created_at, updated_at, expires_at: as `Conversation` has them.
        first_position: runs before it are removed.
        metadata: JSON; None if it is longer than an item should be, and then in parts.
        parts, part_count: the name and number of its parts: the items at ``part#NAME#0000`` and so on.
        shard: of the lists that the conversation is in.
        unswept: a purge has something to delete, or a large commit is writing runs.
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
    expires_at = NumberAttribute(null=True)
    metadata = UnicodeAttribute(null=True)
    parts = UnicodeAttribute(null=True)
    part_count = NumberAttribute(null=True)
    shard = NumberAttribute(null=True)
    unswept = BooleanAttribute(null=True)

    def run_keys(self) -> tuple[str, str]:
        """Return the sort keys of the first and the last run, for ``RunItem.sk.between``: other runs are removed."""
        low, high = int(self.first_position or 1), int(self.last_position or 0)
        return keys.run(self.incarnation or "", low), keys.run(self.incarnation or "", max(low, high))


class RunItem(Model):
    """A run. ``input``, ``output`` and ``metadata`` are JSON; None if together they are too large for an item, and in parts.

    Attributes:
        id: the run's id.
        created_at: microseconds since 1970.
        input, output, metadata: as `Run` has them.
        parts, part_count: the name and number of its parts: the items at ``part#NAME#0000`` and so on.
        sizes: how many characters of the parts belong to input, output and metadata.
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

    @property
    def position(self) -> int:
        """The run's position in its conversation."""
        return keys.position_of(self.sk)
