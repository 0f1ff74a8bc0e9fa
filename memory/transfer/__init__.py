r"""Whole conversations: exported and imported as lines of JSON, copied from store to store, compared.

`dump` writes one conversation per line, and `restore` writes what `read_lines` reads to a store, exactly as it was. Each line is
one JSON object in UTF-8::

    {"id": "42", "metadata": {"customer": "ada"}, "runs": [{"input": "Where?", "output": "Here.", "metadata": {}}]}

Only ``id`` is required, and ``input`` and ``output`` of a run. `dump` writes everything that a store keeps:

==================  ===================================================================================================
of a conversation   ``namespace`` (by default that of the store it is written to), ``version``, ``created_at``,
                    ``updated_at``, ``last_run_at``, ``expires_at`` and ``expires_after`` in seconds (left out if it never
                    expires) and ``last_position``, which is greater than the last run's position if that run was removed
of a run            ``position``, greater than that of the run before (by default the next one), ``id``, ``created_at``, and
                    ``is_open`` if it is true: then ``output`` may be missing
of both             ``byte_strings``: the names of the fields in which each character of a string is a byte of its UTF-8,
                    which here also encodes surrogates. JSON cannot distinguish the two code points ``\ud83d`` and
                    ``\ude00`` from the one they form; a value with two such neighbours is written this way.
==================  ===================================================================================================

Times are ISO 8601, for example ``2026-01-31T12:00:00.000000Z``. An unknown key is an error, because its meaning would be lost.
"""

from memory.transfer.copying import Copied, NotCopied, Outcome, copy, copy_conversation
from memory.transfer.jsonl import dump, read_lines
from memory.transfer.limits import DEFAULT_LIMITS, Limits
from memory.transfer.loading import OnConflict, OnExisting, Totals, restore
from memory.transfer.parsing import ParsedConversation, RejectedConversation, read_json
from memory.transfer.reading import read_whole
from memory.transfer.unpacking import uncompressed
from memory.transfer.verifying import Compared, Difference, verify

__all__ = [
    "DEFAULT_LIMITS",
    "Compared",
    "Copied",
    "Difference",
    "Limits",
    "NotCopied",
    "OnConflict",
    "OnExisting",
    "Outcome",
    "ParsedConversation",
    "RejectedConversation",
    "Totals",
    "copy",
    "copy_conversation",
    "dump",
    "read_json",
    "read_lines",
    "read_whole",
    "restore",
    "uncompressed",
    "verify",
]
