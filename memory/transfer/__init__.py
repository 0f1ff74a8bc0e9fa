r"""Conversations as lines of JSON: `dump` writes them, `restore` brings them back exactly as they were.

One conversation a line, UTF-8, in one object::

    {"id": "42", "metadata": {"customer": "ada"}, "runs": [{"input": "Where?", "output": "Here.", "metadata": {}}]}

That much is enough to be read; ``metadata`` and ``runs`` can be left out too. What is written has all that a store
keeps:

==================  ===================================================================================================
of a conversation   ``version``, ``created_at``, ``updated_at``, ``expires_at`` (left out where it never expires) and
                    ``last_position``: given last, it is beyond the last run's if that run was removed
of a run            ``position``, beyond that of the run before (the next one, where left out), ``id``, ``created_at``
of both             ``byte_strings``: the names of those fields in which each string stands for its bytes, a character
                    a byte, in UTF-8 that also encodes surrogates. JSON cannot tell the two code points ``\ud83d`` and
                    ``\ude00`` from the one they make; a value with two such neighbours is written this way.
==================  ===================================================================================================

Times are ISO 8601, as ``2026-01-31T12:00:00.000000Z``. An unknown key is an error: what it means would be lost.
"""

from memory.transfer.copying import Copied, Outcome, copy_conversation
from memory.transfer.copying_all import CopyTotals, NotCopied, copy
from memory.transfer.jsonl import dump, read_lines, split_lines, write_head, write_line
from memory.transfer.limits import DEFAULT_LIMITS, Limits
from memory.transfer.loading import OnConflict, Totals, restore
from memory.transfer.parsing import (
    BROKEN_STREAM,
    ParsedConversation,
    RejectedConversation,
    arrive,
    broken_off,
    parse,
    read_json,
)
from memory.transfer.reading import read_whole
from memory.transfer.unpacking import uncompressed
from memory.transfer.verifying import Compared, Difference, verify

__all__ = [
    "BROKEN_STREAM",
    "DEFAULT_LIMITS",
    "Compared",
    "Copied",
    "CopyTotals",
    "Difference",
    "Limits",
    "NotCopied",
    "OnConflict",
    "Outcome",
    "ParsedConversation",
    "RejectedConversation",
    "Totals",
    "arrive",
    "broken_off",
    "copy",
    "copy_conversation",
    "dump",
    "parse",
    "read_json",
    "read_lines",
    "read_whole",
    "restore",
    "split_lines",
    "uncompressed",
    "verify",
    "write_head",
    "write_line",
]
