"""The desk's jobs. A scheduler runs ``python -m support_desk.jobs`` every hour, as the owner of the tables."""

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Final

from memory import Erased, Retained, Retention, where
from support_desk import service
from support_desk.domain import Model, fake_model
from support_desk.persistence import Database

log = logging.getLogger(__name__)

RETENTION: Final = Retention(idle=timedelta(days=90), keep_last=1000, where=where("topic") == "other")
ABANDONED: Final = timedelta(minutes=10)  # a message that has no answer by then will not get one from its request


def retain(database: Database) -> Retained:
    """Delete what is too old, of all tenants: conversations that are idle or have expired, and their tickets."""
    retained = database.store.retain(RETENTION, all_namespaces=True)
    database.remove_lone_tickets()
    return retained


def erase(database: Database, tenant: str, customer_id: str) -> Erased:
    """Erase a customer, and return the report to file. It may be called again, for instance after a crash."""
    database.run(tenant, lambda uow: uow.customers.remove(customer_id))  # first: nobody opens a ticket from here on
    with database.of(tenant) as store:
        return store.erase(where("customer") == customer_id, verify=True)


def answer_abandoned(database: Database, model: Model, age: timedelta = ABANDONED) -> int:
    """Answer the messages of all tenants that a crash left without an answer; return how many they were."""
    answered = 0
    for tenant in database.store.namespaces():
        with database.of(tenant) as store:
            abandoned = store.runs.open(before=datetime.now(UTC) - age, limit=1000)
        for ticket_id, message in abandoned:
            try:
                service.reply(database, tenant, ticket_id, message, model)
                answered += 1
            except Exception:  # the next ones are answered nevertheless
                log.exception("a message to ticket %s still has no answer", ticket_id)
    return answered


def main() -> None:
    """Do what is to be done every hour, and print what was done."""
    database = Database(os.environ["DESK_URL"])
    print(f"answered {answer_abandoned(database, fake_model)} messages; {retain(database)}")  # noqa: T201
    database.engine.dispose()


if __name__ == "__main__":
    main()
