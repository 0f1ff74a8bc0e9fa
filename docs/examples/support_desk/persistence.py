"""The persistence layer: the tables, repositories over them, and a unit of work that joins the conversations'."""

import json
import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Column, Text, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, registry, relationship

from memory import ConflictError, Store, TransactionAbortedError, Versioned, to_json
from memory import UnitOfWork as Memory
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.tables import conversation_view, run_view
from support_desk.domain import Customer, NoSuchError, Priority, Ticket, TicketInfo

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


def _upgrade(old: dict[str, Any], version: int) -> dict[str, Any]:  # noqa: ARG001  # there is only one older version
    """Version 1 had ``urgent``, a bool, in the place of ``priority``."""
    urgent = old.pop("urgent", False)
    return {**old, "priority": Priority.URGENT if urgent else Priority.NORMAL}


TICKET_INFO: Final = Versioned(TicketInfo, version=2, upgrade=_upgrade)
"""The metadata of conversations, as the store has it."""

_tenant: Final = ContextVar("tenant", default="")  # whose rows the statements see


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

    def remove(self, id: str) -> None:
        """Remove a customer, if there is one, and the tickets."""
        of_customer = (tickets.c.tenant == self._tenant) & (tickets.c.customer_id == id)
        self._session.execute(sa.delete(tickets).where(of_customer))
        self._session.execute(sa.delete(customers).where(customers.c.tenant == self._tenant, customers.c.id == id))


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

    def get_many(self, ids: Sequence[str]) -> dict[str, Ticket]:
        """Return the tickets with these ids, by id."""
        query = sa.select(Ticket).where(tickets.c.tenant == self._tenant, tickets.c.id.in_(ids))
        return {ticket.id: ticket for ticket in self._session.scalars(query)}

    def containing(self, words: str) -> list[Ticket]:
        """Return the tickets with a message that contains the words, by ILIKE."""
        part = json.dumps(words, ensure_ascii=False)[1:-1]  # as JSON has it: a quote comes after a backslash
        run = run_view.c
        query = (
            sa.select(Ticket)
            .join(run_view, (run.namespace == tickets.c.tenant) & (run.conversation_id == tickets.c.id))
            .where(tickets.c.tenant == self._tenant)
            .where(sa.or_(*[sa.cast(said, Text).icontains(part, autoescape=True) for said in (run.input, run.output)]))
        )
        return list(self._session.scalars(query.distinct()))


class UnitOfWork:
    """One transaction of one tenant: the desk's repositories, and those of the unit of work that has joined it."""

    def __init__(self, session: Session, memory: Memory[TicketInfo], tenant: str) -> None:
        self.session = session
        self.customers, self.tickets = Customers(session, tenant), Tickets(session, tenant)
        self.conversations, self.runs = memory.conversations, memory.runs
        self.flush = memory.commit  # into the transaction


class Database:
    """The desk's database: an engine, and the store of conversations in it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.engine = sa.create_engine(url, isolation_level="SERIALIZABLE", **options)
        listen(self.engine)
        self.store = Store(SqlRepository(self.engine), metadata=TICKET_INFO, default=to_json)

    @contextmanager
    def of(self, tenant: str) -> Generator[Store[TicketInfo], None, None]:
        """Return the store of a tenant. Every statement in the block sees the rows of this tenant only."""
        with as_tenant(tenant):
            yield self.store.namespace(tenant)

    @contextmanager
    def begin(self, tenant: str, idempotency_key: str | None = None) -> Generator[UnitOfWork, None, None]:
        """Run the block in one transaction: what it changes is committed at its end, or not at all if it raises."""
        with (
            self.of(tenant) as store,
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
            store.begin(connection=session, idempotency_key=idempotency_key) as memory,
        ):
            yield UnitOfWork(session, memory, tenant)

    def run(
        self, tenant: str, work: Callable[[UnitOfWork], T], idempotency_key: str | None = None, attempts: int = 5
    ) -> T:
        """Do the work in one transaction. If concurrent ones get in its way, roll back and repeat all of it."""
        try:
            with self.begin(tenant, idempotency_key) as uow:
                return work(uow)
        except (ConflictError, DBAPIError, TransactionAbortedError) as error:
            if attempts == 1 or not is_repeatable(error):
                raise
        time.sleep(random.uniform(0, 0.1))  # noqa: S311  # they should not meet again
        return self.run(tenant, work, idempotency_key, attempts - 1)

    def remove_lone_tickets(self) -> None:
        """Remove the tickets whose conversations are deleted or have expired."""
        conversation = conversation_view.c
        has_one = sa.exists().where(conversation.namespace == tickets.c.tenant, conversation.id == tickets.c.id)
        with self.engine.begin() as connection:
            connection.execute(sa.delete(tickets).where(~has_one))


def is_repeatable(error: Exception) -> bool:
    """Whether a repetition may succeed: for SQLAlchemy's errors, after those of SQLSTATE class 40."""
    if isinstance(error, ConflictError):
        return error.retryable
    return not isinstance(error, DBAPIError) or str(getattr(error.orig, "sqlstate", "")).startswith("40")


@contextmanager
def as_tenant(tenant: str) -> Generator[None, None, None]:
    """Limit every statement in the block to the rows of a tenant."""
    token = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(token)


def listen(engine: sa.Engine) -> None:
    """Have each transaction of an engine begin with what the desk needs."""
    event.listen(engine, "begin", _set_tenant if engine.dialect.name == "postgresql" else _lock)


def _set_tenant(connection: sa.Connection) -> None:
    """Set what the row-level security policies compare with, until the end of the transaction."""
    connection.execute(sa.text("SELECT set_config('desk.tenant', :tenant, true)"), {"tenant": _tenant.get()})


def _lock(connection: sa.Connection) -> None:
    """Begin a sqlite transaction with the write lock, so that transactions run one after the other."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
