"""The persistence layer: the tables, repositories over them, and a unit of work that joins the conversations'."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Column, Text, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, registry, relationship

from memory import ConflictError, Store, TransactionAbortedError
from memory import UnitOfWork as Memory
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.tables import conversation_view, run_view
from support_desk.domain import Customer, NoSuchError, Ticket

T = TypeVar("T")

metadata: Final = sa.MetaData()
customers: Final = sa.Table(
    "customers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
)
tickets: Final = sa.Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("is_open", sa.Boolean, nullable=False),
    sa.ForeignKeyConstraint(
        ["tenant", "customer_id"], ["customers.tenant", "customers.id"], name="fk_tickets_customers"
    ),
    sa.Index("ix_tickets_customer", "tenant", "customer_id"),
)

_mapper: Final = registry(metadata=metadata)
_mapper.map_imperatively(Ticket, tickets)
_mapper.map_imperatively(Customer, customers, properties={"tickets": relationship(Ticket)})


@dataclass(frozen=True)
class Summary:
    """A ticket with its last messages, oldest first: question and answer."""

    id: str
    subject: str
    topic: str | None
    messages: list[tuple[Any, Any]]


class Customers:
    """The customers of a tenant."""

    def __init__(self, session: Session, tenant: str) -> None:
        self._session, self._tenant = session, tenant

    def put(self, customer: Customer) -> None:
        """Add a customer, or rename the one with this id."""
        self._session.merge(customer)

    def get(self, id: str) -> Customer:
        """Return a customer; the commit writes what changes of it, and its new tickets."""
        found = self._session.get(Customer, (self._tenant, id))
        if found is None:
            raise NoSuchError(f"there is no customer {id}")
        return found


class Tickets:
    """The tickets of a tenant, and queries that join them with their conversations."""

    def __init__(self, session: Session, tenant: str) -> None:
        self._session, self._tenant = session, tenant

    def get(self, id: str) -> Ticket:
        """Return a ticket; the commit writes what changes of it."""
        query = sa.select(Ticket).where(tickets.c.tenant == self._tenant, tickets.c.id == id)
        found = self._session.scalar(query)
        if found is None:
            raise NoSuchError(f"there is no ticket {id}")
        return found

    def of_customer(self, customer_id: str, most: int = 3) -> list[Summary]:
        """Return a customer's tickets, each with its last messages, by one statement."""
        conversation, run = conversation_view.c, run_view.c
        topic = conversation.metadata["topic"].as_string().label("topic")
        age = sa.func.row_number().over(partition_by=tickets.c.id, order_by=run.position.desc()).label("age")
        messages = (
            sa.select(tickets.c.id, tickets.c.subject, topic, run.position, run.input, run.output, age)
            .join(conversation_view, (conversation.namespace == tickets.c.tenant) & (conversation.id == tickets.c.id))
            .outerjoin(run_view, (run.namespace == tickets.c.tenant) & (run.conversation_id == tickets.c.id))
            .where(tickets.c.tenant == self._tenant, tickets.c.customer_id == customer_id)
            .subquery()
        )
        last = sa.select(messages).where(messages.c.age <= most).order_by(messages.c.id, messages.c.age.desc())
        rows = self._session.execute(last)
        return [
            Summary(*ticket, [(row.input, row.output) for row in found if row.position is not None])
            for ticket, found in groupby(rows, lambda row: (row.id, row.subject, row.topic))
        ]

    def containing(self, words: str) -> list[str]:
        """Return the ids of the tickets with a message that contains the words, by ILIKE."""
        part = json.dumps(words, ensure_ascii=False)[1:-1]  # as JSON has it: a quote comes after a backslash
        said = [sa.cast(text, Text).icontains(part, autoescape=True) for text in (run_view.c.input, run_view.c.output)]
        query = sa.select(run_view.c.conversation_id).where(run_view.c.namespace == self._tenant, sa.or_(*said))
        return list(self._session.scalars(query.distinct()))


class UnitOfWork:
    """One transaction of one tenant: the desk's repositories, and those of the unit of work that has joined it."""

    def __init__(self, session: Session, memory: Memory, tenant: str) -> None:
        self.session = session
        self.customers, self.tickets = Customers(session, tenant), Tickets(session, tenant)
        self.conversations, self.runs = memory.conversations, memory.runs


class Database:
    """The desk's database: an engine, and the store of conversations in it."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, isolation_level="SERIALIZABLE")
        event.listen(self.engine, "begin", _set_tenant if self.engine.dialect.name == "postgresql" else _lock)
        self.store = Store(SqlRepository(self.engine))

    @contextmanager
    def begin(self, tenant: str) -> Iterator[UnitOfWork]:
        """Run the block in one transaction: what it changes is committed at its end, or not at all if it raises."""
        engine, store = self.engine.execution_options(tenant=tenant), self.store.namespace(tenant)
        with (
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
            store.begin(connection=session) as memory,
        ):
            yield UnitOfWork(session, memory, tenant)

    def run(self, tenant: str, work: Callable[[UnitOfWork], T], attempts: int = 5) -> T:
        """Do the work in one transaction. If concurrent ones get in its way, roll back and repeat all of it."""
        try:
            with self.begin(tenant) as uow:
                return work(uow)
        except (ConflictError, DBAPIError, TransactionAbortedError) as error:
            if attempts == 1 or not _is_repeatable(error):
                raise
        time.sleep(random.uniform(0, 0.1))  # noqa: S311  # they should not meet again
        return self.run(tenant, work, attempts - 1)


def _is_repeatable(error: Exception) -> bool:
    """Whether it is an error of ours, or else of SQLSTATE class 40: a deadlock or a serialization failure."""
    return not isinstance(error, DBAPIError) or str(getattr(error.orig, "sqlstate", "")).startswith("40")


def _set_tenant(connection: sa.Connection) -> None:
    """Set what the row-level security policies compare with, until the end of the transaction."""
    tenant = connection.get_execution_options().get("tenant", "")
    connection.execute(sa.text("SELECT set_config('desk.tenant', :tenant, true)"), {"tenant": tenant})


def _lock(connection: sa.Connection) -> None:
    """Begin a sqlite transaction with the write lock, so that transactions run one after the other."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
