"""What the desk does. Each function is the work of one transaction, and may be repeated."""

from memory import Conversation, Run, where
from support_desk.domain import Answer, Ticket
from support_desk.persistence import UnitOfWork

HISTORY = 20  # messages that the model reads


def open_ticket(uow: UnitOfWork, customer_id: str, subject: str) -> Ticket:
    """Open a ticket and its conversation."""
    ticket = uow.customers.get(customer_id).open_ticket(subject)
    uow.conversations.add(Conversation(ticket.id, metadata={"customer": customer_id}))
    return ticket


def close_ticket(uow: UnitOfWork, ticket_id: str) -> None:
    """Close a ticket."""
    uow.tickets.get(ticket_id).is_open = False


def history(uow: UnitOfWork, ticket_id: str) -> list[Run]:
    """Return the last messages of an open ticket."""
    uow.tickets.get(ticket_id).check_open()
    return uow.runs.last(ticket_id, HISTORY)


def record(uow: UnitOfWork, ticket_id: str, text: str, answer: Answer) -> None:
    """Append a message with its answer, and note the topic."""
    uow.tickets.get(ticket_id).check_open()
    uow.runs.append(ticket_id, Run(text, answer.text))
    uow.conversations.get(ticket_id).metadata["topic"] = answer.topic


def about(uow: UnitOfWork, topic: str) -> list[str]:
    """Return the ids of the tickets about a topic, those with the newest messages first."""
    return [conversation.id for conversation in uow.conversations.find(where("topic") == topic)]
