"""What the desk does. Each function is the work of one transaction, and may be repeated; `reply` takes several."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from memory import PENDING, Committed, Conversation, Run, RunsAppended, Store, where
from support_desk.domain import Answer, Model, Priority, Ticket, TicketInfo
from support_desk.persistence import Database, UnitOfWork

HISTORY: Final = 20  # messages that the model reads
PAGE: Final = 50  # messages that a client reads at once
LIFETIME: Final = timedelta(days=365)  # of a ticket, after its last message


@dataclass(frozen=True)
class Summary:
    """A ticket with its last messages, oldest first."""

    id: str
    subject: str
    is_open: bool
    info: TicketInfo
    messages: list[Run]


def open_ticket(uow: UnitOfWork, customer_id: str, subject: str) -> Ticket:
    """Open a ticket and its conversation."""
    ticket = uow.customers.get(customer_id).open_ticket(subject)
    uow.conversations.add(Conversation(ticket.id, TicketInfo(customer_id), expires_after=LIFETIME))
    return ticket


def close_ticket(uow: UnitOfWork, ticket_id: str) -> None:
    """Close a ticket."""
    uow.tickets.get(ticket_id).is_open = False


def tickets_of(uow: UnitOfWork, customer_id: str, most: int = 3) -> list[Summary]:
    """Return a customer's tickets, those with the newest messages first. However many there are, it takes three statements."""
    conversations = uow.conversations.find(where("customer") == customer_id)
    tickets = uow.tickets.get_many([one.id for one in conversations])
    messages = uow.runs.last_of(conversations, most)
    return [
        Summary(one.id, ticket.subject, ticket.is_open, one.metadata, messages[one.id])
        for one in conversations
        if (ticket := tickets.get(one.id)) is not None  # while a customer is erased, conversations are last
    ]


def about(uow: UnitOfWork, topic: str) -> list[str]:
    """Return the ids of the tickets about a topic, those with the newest messages first."""
    return [conversation.id for conversation in uow.conversations.find(where("topic") == topic)]


def set_priority(
    uow: UnitOfWork, ticket_id: str, priority: Priority, if_match: str | None = None
) -> Conversation[TicketInfo]:
    """Set the priority of a ticket. Raise `ConflictError` if its conversation does not have the etag ``if_match`` any more."""
    conversation = uow.conversations.get(ticket_id, if_match=if_match)
    conversation.metadata.priority = priority
    uow.flush()  # the conversation then has its new etag
    return conversation


def messages(uow: UnitOfWork, ticket_id: str, before: int | None = None) -> list[Run]:
    """Return the last messages of a ticket, or those before a position."""
    uow.tickets.get(ticket_id)
    return uow.runs.last(ticket_id, PAGE, before=before)


def ask(uow: UnitOfWork, ticket_id: str, text: str, *, after: int | None = None) -> Run:
    """Store a message, which has no answer yet, and return it. ``after`` a position, it replaces all messages there.

    If the transaction has the idempotency key of an earlier one, nothing is stored, and the earlier message is returned.
    """
    ticket, message = uow.tickets.get(ticket_id), Run(text, PENDING)
    if after is not None:
        uow.runs.remove(ticket_id, after=after)
    uow.runs.append(ticket_id, message)
    receipt = uow.flush()
    if receipt.repeated:
        return uow.runs.get(ticket_id, receipt.last_position(ticket_id))
    ticket.check_open()
    return message


def answer(uow: UnitOfWork, ticket_id: str, message: Run, answer: Answer) -> Run:
    """Complete a message with its answer, note the topic, and return it. An earlier answer is kept."""
    if uow.runs.get(ticket_id, message).is_open:
        uow.runs.complete(ticket_id, message.id, output=answer.text, metadata={"tools": answer.tools})
        uow.conversations.get(ticket_id).metadata.topic = answer.topic
    return uow.runs.get(ticket_id, message)


def reply(database: Database, tenant: str, ticket_id: str, message: Run, model: Model) -> Run:
    """Answer a message. The model is slow and costs money: no transaction waits for it, and no repetition pays again."""
    if not message.is_open:
        return message
    with database.of(tenant) as store:
        history = store.runs.last(ticket_id, HISTORY, before=message)
    answered = model(history, message.input)
    return database.run(tenant, lambda uow: answer(uow, ticket_id, message, answered))


def alert(store: Store[TicketInfo], send: Callable[[str, str], object]) -> Callable[[Committed], None]:
    """Return a subscriber that sends the new messages of urgent tickets to the staff."""

    def handle(committed: Committed) -> None:
        conversations = store.namespace(committed.namespace).conversations
        for event in committed.events:
            if not isinstance(event, RunsAppended):
                continue
            if conversations.get(event.conversation_id).metadata.priority is Priority.URGENT:
                for message in event.runs:
                    send(event.conversation_id, message.input)

    return handle
