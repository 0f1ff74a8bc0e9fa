"""What nobody outside knows of the service (A1 to A16 of the contract), each as a switch; as they stand, they are as assumed."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """How this server behaves where the contract only assumes. The number before each group is the contract's."""

    # A1: PATCH of a thread with messages replaces them; else they are added
    replaces_messages: bool = True
    # A2: PATCH with metadata replaces the object; else it is merged into it, at every level
    replaces_metadata: bool = True
    # A3: an alias that is taken answers 409; else there are two threads of it
    unique_alias: bool = True
    # A4: the order of lists
    message_order: Literal["ascending", "descending", "shuffled"] = "ascending"
    thread_order: Literal["newest", "oldest"] = "newest"
    # A5: how pages are counted, cut and linked
    first_page: int = 1
    page_size: int = 20
    largest_page: int = 100
    refuses_large_pages: bool = False  # else they are cut
    ignores_page_size: bool = False
    links: Literal["absent at the ends", "null at the ends", "never"] = "absent at the ends"
    # A6: unknown fields of a body are ignored; else refused
    ignores_unknown: bool = True
    # A7: what the filters compare
    alias_filter: Literal["exact", "prefix", "any case", "none"] = "exact"
    prefix_filter: Literal["name", "alias", "none"] = "name"
    # A8: the alias of a thread without one
    no_alias: Literal["empty", "null", "id", "name"] = "empty"
    # A9: a malformed id
    malformed_id: int = 404
    # A10: where the index begins, and what a deletion does to it
    first_index: int = 0
    renumbers: bool = False
    reuses_last_index: bool = False
    # A11: what a deletion takes, and what it says the second time
    deletes_messages: bool = True  # else those of a deleted thread stay, by their own ids
    deleted_twice: int = 404
    # A12: what message_count counts
    message_count: Literal["messages", "texts", "nothing"] = "messages"
    # A13: the thread of another organization
    foreign: int = 404
    # A14: a body that does not fit the schema
    invalid: int = 422
    # A15: limits, in characters; None: none
    largest_text: int | None = None
    largest_metadata: int | None = None
    most_messages: int | None = None
    # A16: one request is atomic; else a thread that is created with messages may stay with the first of them
    atomic: bool = True
    # Not in the contract's list, and as unknown: a message moves its thread's updated_at
    touches_thread: bool = True
    # Nor this: JSON is kept as it came; else as many services keep it (1.0 is 1, large integers are doubles, keys are sorted)
    keeps_json: bool = True
    # Nor this: numbers are whole; else written as 3.0, which the contract's `number` allows
    whole_numbers: bool = True
