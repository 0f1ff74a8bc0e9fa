"""The unknowns of the service that the adapter copes with, each as a switch; the defaults are as the contract assumes.

What the adapter relies on has no switch: that PATCH with ``messages`` replaces them (A1), that ``message_count`` counts
messages (A12), that a deleted thread's messages go with it (A11), and that a new message moves its thread's ``updated_at``.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """How this server behaves where the contract only assumes. The number before each group is the contract's."""

    # A2: PATCH with metadata replaces the object; else it is merged into it, at every level
    replaces_metadata: bool = True
    # A3: an alias that is taken answers 409; else there are two threads of it
    unique_alias: bool = True
    # A4: the order of lists
    message_order: Literal["ascending", "descending"] = "ascending"
    thread_order: Literal["newest", "oldest"] = "newest"
    # A5: how pages are counted, cut and linked
    first_page: int = 1
    page_size: int = 20
    largest_page: int = 100
    refuses_large_pages: bool = False  # else they are cut
    links: bool = True
    # A6: unknown fields of a body are ignored; else refused
    ignores_unknown: bool = True
    # A7: what the filter by alias compares
    alias_filter: Literal["exact", "prefix", "any case"] = "exact"
    # A8: the alias of a thread without one
    no_alias: Literal["empty", "null", "id"] = "empty"
    # A9: a malformed id
    malformed_id: int = 404
    # A10: where the index begins, and what a deletion does to it
    first_index: int = 0
    renumbers: bool = False
    reuses_last_index: bool = False
    # A11: what a second deletion answers
    deleted_twice: int = 404
    # A13: the thread of another organization
    foreign: int = 404
    # A14: a body that does not fit the schema
    invalid: int = 422
    # A15: limits, in characters; None: none
    largest_text: int | None = None
    largest_metadata: int | None = None
    most_messages: int | None = None
    # A16: one request is atomic; else a thread that is created with messages may keep only the first of them
    atomic: bool = True
    # Not in the contract's list: JSON is kept as it came; else as many services keep it (1.0 is 1, keys are sorted)
    keeps_json: bool = True
    # Nor this: numbers are whole; else written as 3.0, which the contract's `number` allows
    whole_numbers: bool = True
