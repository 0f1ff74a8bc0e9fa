"""The domain: customers, their tickets, and the rules. It imports no database and no HTTP."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias
from uuid import uuid4

from memory import Run

MOST_OPEN: Final = 3


class RuleError(Exception):
    """A rule of the desk forbids what was asked."""


class NoSuchError(Exception):
    """The customer or the ticket does not exist."""


class Priority(StrEnum):
    """How soon a ticket needs an answer."""

    NORMAL = "normal"
    URGENT = "urgent"


@dataclass
class TicketInfo:
    """The metadata of a ticket's conversation: what queries search for."""

    customer: str
    topic: str | None = None
    priority: Priority = Priority.NORMAL


@dataclass(eq=False)
class Ticket:
    """What a customer asks for. Its messages are the runs of the conversation that has its id."""

    subject: str
    is_open: bool = True
    id: str = field(default_factory=lambda: uuid4().hex)

    def check_open(self) -> None:
        """Raise `RuleError` if the ticket is closed."""
        if not self.is_open:
            raise RuleError(f"ticket {self.id} is closed")


@dataclass(eq=False)
class Customer:
    """A customer of a tenant, with all tickets."""

    tenant: str
    id: str
    name: str
    tickets: list[Ticket] = field(default_factory=list[Ticket])

    def open_ticket(self, subject: str) -> Ticket:
        """Return a new ticket, or raise `RuleError` if too many are open."""
        if sum(ticket.is_open for ticket in self.tickets) >= MOST_OPEN:
            raise RuleError(f"customer {self.id} already has {MOST_OPEN} open tickets")
        ticket = Ticket(subject)
        self.tickets.append(ticket)
        return ticket


class Answer(NamedTuple):
    """What the model answers, the topic that it finds in the conversation, and what its tools returned."""

    text: str
    topic: str
    tools: object = None


Model: TypeAlias = Callable[[Sequence[Run], str], Answer]
"""Answers a message, given the messages before it."""

StreamingModel: TypeAlias = Callable[[Sequence[Run], str], AsyncIterator[Answer]]
"""Likewise, in parts: it yields the answer so far, until it is complete."""


def fake_model(history: Sequence[Run], text: str) -> Answer:
    """Stand in for a call of a language model, which takes seconds and costs money."""
    topic = "refund" if "refund" in text.lower() else "other"
    return Answer(f"({len(history) + 1}) You wrote: {text}", topic)


async def fake_stream(history: Sequence[Run], text: str) -> AsyncIterator[Answer]:
    """Stand in for a call that streams."""
    answer = fake_model(history, text)
    for end, character in enumerate(answer.text):
        if character == " ":
            yield answer._replace(text=answer.text[:end])
    yield answer
