"""The support desk's messages, metadata, events, retention and erasure, on sqlite and on PostgreSQL."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Barrier

import pytest
from fastapi.testclient import TestClient
from support_desk import jobs, service
from support_desk.api import create_app
from support_desk.domain import Answer, Customer, Priority, Ticket, TicketInfo, fake_model
from support_desk.persistence import TICKET_INFO, Database, UnitOfWork

from memory import (
    PENDING,
    Committed,
    ConflictError,
    Conversation,
    ConversationAdded,
    Event,
    MetadataChanged,
    Retention,
    Run,
    RunCompleted,
    RunsAppended,
    TransactionAbortedError,
    where,
)
from tests.examples.desk import HERE, INFO, counts, opened


def test_an_edit_is_refused_if_the_client_has_not_seen_the_last_write(client: TestClient) -> None:
    ticket = opened(client, "Hello?")
    seen = client.get(f"/tickets/{ticket}")
    assert seen.headers["ETag"] == seen.json()["etag"]
    opened_later = client.post(f"/tickets/{ticket}/messages", params={"text": "Are you there?"}).raise_for_status()
    urgent = partial(client.put, f"/tickets/{ticket}/priority", params={"priority": "urgent"})
    stale = urgent(headers={"If-Match": seen.headers["ETag"]})
    assert (stale.status_code, opened_later.json()["position"]) == (412, 2)
    assert client.get(f"/tickets/{ticket}").json()["metadata"] == INFO
    fresh = urgent(headers={"If-Match": client.get(f"/tickets/{ticket}").headers["ETag"]})
    assert fresh.status_code == 200
    assert fresh.json()["metadata"] == {**INFO, "priority": "urgent"}
    again = client.put(
        f"/tickets/{ticket}/priority", params={"priority": "normal"}, headers={"If-Match": fresh.headers["ETag"]}
    )
    assert again.status_code == 200  # the response had the new etag
    assert urgent().status_code == 200  # without If-Match, unconditionally


def test_a_ticket_that_was_removed_and_opened_again_has_another_etag(database: Database) -> None:
    def open_again(uow: UnitOfWork) -> None:
        if "ticket" in uow.conversations:
            uow.conversations.remove("ticket")
        uow.conversations.add(Conversation("ticket", TicketInfo("ada")))

    etags = []
    for _ in range(2):
        database.run("here", open_again)
        with database.of("here") as store:
            etags.append(store.conversations.get("ticket").etag)
    assert etags[0] != etags[1]
    attempts: list[None] = []

    def edit(uow: UnitOfWork) -> None:
        attempts.append(None)
        service.set_priority(uow, "ticket", Priority.URGENT, etags[0])

    with pytest.raises(ConflictError):
        database.run("here", edit)
    assert len(attempts) == 1  # a repetition would find the same


def test_a_conflict_that_stays_is_a_409(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit_at_the_same_time(*_: object) -> None:
        raise ConflictError("somebody else is always first")

    monkeypatch.setattr(service, "set_priority", edit_at_the_same_time)
    assert client.put("/tickets/none/priority", params={"priority": "urgent"}).status_code == 409

    def abort(*_: object) -> None:
        raise TransactionAbortedError("a deadlock, again and again")

    monkeypatch.setattr(service, "set_priority", abort)
    refused = client.put("/tickets/none/priority", params={"priority": "urgent"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")


def test_what_does_not_exist_and_what_is_invalid(client: TestClient) -> None:
    assert client.get("/tickets/none").status_code == 404
    assert client.get("/tickets/none/messages").status_code == 404
    assert client.put("/tickets/none/priority", params={"priority": "high"}).status_code == 422
    key = {"Idempotency-Key": "a control character: \x7f"}
    assert client.post(f"/tickets/{opened(client)}/messages", params={"text": "?"}, headers=key).status_code == 422


def test_a_redelivered_message_is_stored_and_answered_once(database: Database) -> None:
    asked: list[str] = []

    def model(history: Sequence[Run], message: str) -> Answer:
        asked.append(message)
        return fake_model(history, message)

    with TestClient(create_app(database, model), headers=HERE) as client:
        ticket, other = opened(client), opened(client)
        key = {"Idempotency-Key": "message-7"}
        post = partial(client.post, f"/tickets/{ticket}/messages", params={"text": "Hello?"})
        first, second = post(headers=key), post(headers=key)
        assert first.status_code == 200
        assert first.json() == second.json()
        assert asked == ["Hello?"]
        assert post(headers={"Idempotency-Key": "message-8"}).json()["position"] == 2
        elsewhere = client.post(f"/tickets/{other}/messages", params={"text": "Hello?"}, headers=key)
        assert elsewhere.json()["position"] == 1  # the key of another ticket's message
        client.post(f"/tickets/{ticket}/close").raise_for_status()
        assert post(headers=key).json() == first.json()
        assert post(headers={"Idempotency-Key": "message-9"}).status_code == 409
        assert len(client.get(f"/tickets/{ticket}/messages").json()) == 2


def test_deliveries_at_the_same_time_are_stored_once(database: Database, client: TestClient) -> None:
    ticket = opened(client)
    barrier = Barrier(4, timeout=30)

    def deliver(_: int) -> int | None:
        barrier.wait()
        return database.run("here", lambda uow: service.ask(uow, ticket, "Hello?"), "message-7", 20).position

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(deliver, range(4))) == [1] * 4
    with database.of("here") as store:
        assert len(store.runs.list(ticket)) == 1


def test_a_message_whose_request_died_is_answered_by_the_job(database: Database, client: TestClient) -> None:
    ticket = opened(client, "Hello?")
    database.run("here", lambda uow: service.ask(uow, ticket, "My refund!"))  # and here the process ends
    last = client.get(f"/tickets/{ticket}/messages").json()[-1]
    assert (last["input"], last["output"], last["is_open"]) == ("My refund!", None, True)
    assert jobs.answer_abandoned(database, fake_model) == 0  # its request may still be running
    with database.of("here") as store:
        version = store.conversations.get(ticket).version
        assert [message.input for _, message in store.runs.open()] == ["My refund!"]
    assert answer_abandoned_here(database) == 1
    last = client.get(f"/tickets/{ticket}/messages").json()[-1]
    assert (last["output"], last["is_open"]) == ("(2) You wrote: My refund!", False)
    assert client.get(f"/tickets/{ticket}").json()["version"] == version + 1  # for the topic alone
    assert answer_abandoned_here(database) == 0


def answer_abandoned_here(database: Database) -> int:
    """Do what the job does. The tests' account may not list the tenants; with `of`, it sees this one."""
    with database.of("here"):
        return jobs.answer_abandoned(database, fake_model, timedelta(0))


def test_a_message_that_the_model_refuses_does_not_keep_others_from_their_answers(
    database: Database, client: TestClient
) -> None:
    def model(history: Sequence[Run], message: str) -> Answer:
        if message == "refused":
            raise ValueError(message)
        return fake_model(history, message)

    tickets = [opened(client) for _ in range(2)]
    for ticket, message in zip(tickets, ("refused", "Hello?"), strict=True):
        database.run("here", partial(service.ask, ticket_id=ticket, text=message))
    with database.of("here") as store:
        assert jobs.answer_abandoned(database, model, timedelta(0)) == 1
        assert [message.input for _, message in store.runs.open()] == ["refused"]


def test_the_first_of_two_answers_is_kept(database: Database, client: TestClient) -> None:
    """Those of a slow request, and of the job that took it for dead."""
    ticket = opened(client)
    message = database.run("here", lambda uow: service.ask(uow, ticket, "Hello?"))
    for one in ("first", "second"):
        kept = database.run("here", partial(service.answer, ticket_id=ticket, message=message, answer=Answer(one, one)))
        assert kept.output == "first"
    assert client.get(f"/tickets/{ticket}").json()["metadata"]["topic"] == "first"


def test_what_tools_return_is_stored_as_json(database: Database) -> None:
    at, price = datetime(2026, 1, 31, 12, tzinfo=UTC), Decimal("12.50")

    answer = Answer("It costs 12.50.", "price", {"price": price, "at": at, "sizes": (1, 2)})
    with TestClient(create_app(database, lambda *_: answer), headers=HERE) as client:
        ticket = opened(client, "What does it cost?")
        (message,) = client.get(f"/tickets/{ticket}/messages").json()
    assert message["metadata"] == {
        "tools": {"price": 12.5, "at": "2026-01-31T12:00:00.000000Z", "sizes": [1, 2]},
    }


def test_an_edited_message_replaces_what_came_after_it(client: TestClient) -> None:
    ticket = opened(client, "one", "two", "three")
    edited = client.post(f"/tickets/{ticket}/messages", params={"text": "two, edited", "after": 1}).json()
    assert edited["output"] == "(2) You wrote: two, edited"  # the model has read the first message only
    found = client.get(f"/tickets/{ticket}/messages").json()
    assert [message["input"] for message in found] == ["one", "two, edited"]
    earlier = client.get(f"/tickets/{ticket}/messages", params={"before": found[-1]["position"]}).json()
    assert [message["input"] for message in earlier] == ["one"]


def test_metadata_of_the_first_release_is_upgraded(database: Database, client: TestClient) -> None:
    with database.of("here") as store:
        with store.untyped().begin() as old:
            old.conversations.add(Conversation("a", {"customer": "ada", "topic": "refund", "urgent": True}))
            old.conversations.add(Conversation("b", {"customer": "ada"}))
        assert client.get("/tickets/a").json()["metadata"] == {**INFO, "topic": "refund", "priority": "urgent"}
        assert client.get("/tickets/b").json()["metadata"] == {**INFO, "topic": None}
        store.runs.list("a")
        database.run("here", lambda uow: uow.runs.append("b", Run("An append is no edit.", "No.")))
        assert store.conversations.get("b").version == 1
        assert not store.conversations.find(where("priority") == Priority.URGENT)
        assert store.upgrade_metadata() == 2
        assert [one.id for one in store.conversations.find(where("priority") == Priority.URGENT)] == ["a"]
        assert store.untyped().conversations.get("a").metadata == {
            **INFO,
            "topic": "refund",
            "priority": "urgent",
            "_version": 2,
        }
    assert TICKET_INFO.decode({"customer": "ada"}) == TicketInfo("ada")


def test_urgent_messages_are_sent_to_the_staff(database: Database, client: TestClient) -> None:
    sent: list[tuple[str, str]] = []
    database.store.subscribe(service.alert(database.store, lambda *message: sent.append(message)))
    urgent, normal = opened(client), opened(client)
    client.put(f"/tickets/{urgent}/priority", params={"priority": "urgent"}).raise_for_status()
    for ticket in (urgent, normal):
        client.post(f"/tickets/{ticket}/messages", params={"text": "Hello?"}).raise_for_status()
    assert sent == [(urgent, "Hello?")]

    def ask_and_fail(uow: UnitOfWork) -> None:
        service.ask(uow, urgent, "rolled back")
        raise LookupError

    with pytest.raises(LookupError):
        database.run("here", ask_and_fail)
    assert sent == [(urgent, "Hello?")]


def test_events_have_positions_and_decoded_values(database: Database, client: TestClient) -> None:
    seen: list[Event] = []
    database.store.subscribe(lambda committed: seen.extend(committed.events))
    ticket = opened(client, "Grüße")
    of = "here", ticket
    added, asked, noted, answered = seen
    assert added == ConversationAdded(*of, TicketInfo("ada"))
    assert isinstance(asked, RunsAppended)
    assert [(run.position, run.input, run.output) for run in asked.runs] == [(1, "Grüße", PENDING)]
    assert noted == MetadataChanged(*of, TicketInfo("ada", "other"))
    assert isinstance(answered, RunCompleted)
    assert (answered.run_id, answered.output) == (asked.runs[0].id, "(1) You wrote: Grüße")


def test_subscribers_that_read_do_not_exhaust_the_pool(url: str) -> None:
    """They are called when the connection of the commit is back: one is enough for eight threads."""
    database = Database(url, pool_size=1, max_overflow=0, pool_timeout=60)
    sent: list[str] = []
    database.store.subscribe(service.alert(database.store, lambda ticket_id, _: sent.append(ticket_id)))
    barrier = Barrier(8, timeout=30)

    def work(n: int) -> str:
        def ask(uow: UnitOfWork) -> str:
            uow.customers.put(Customer("here", f"customer {n}", "?"))
            ticket = Ticket("?")
            uow.conversations.add(Conversation(ticket.id, TicketInfo(f"customer {n}", priority=Priority.URGENT)))
            uow.runs.append(ticket.id, Run("Hello?", PENDING))
            return ticket.id

        barrier.wait()
        return database.run("here", ask, attempts=20)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    assert sorted(sent) == sorted(made)
    database.engine.dispose()


def test_each_message_moves_the_expiry_and_conflicts_with_nothing(database: Database, client: TestClient) -> None:
    ticket = opened(client)
    before = client.get(f"/tickets/{ticket}").json()
    with database.of("here") as store:
        editor = store.begin()
        editor.conversations.get(ticket).metadata.priority = Priority.URGENT
        database.run("here", lambda uow: service.ask(uow, ticket, "Hello?"))
        editor.commit()
    after = client.get(f"/tickets/{ticket}").json()
    assert (before["expires_after"], after["expires_after"]) == ("P1Y", "P1Y")
    assert after["expires_at"] > before["expires_at"]
    assert after["version"] == before["version"] + 1


def test_what_is_old_is_deleted_with_its_ticket(
    owner_url: str, client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, idle, expired = opened(client, "My refund!"), opened(client, "Hello?"), opened(client, "My refund!")

    def expire(uow: UnitOfWork) -> None:
        uow.conversations.get(expired).expires_at = datetime.now(UTC) - timedelta(seconds=1)

    database.run("here", expire)
    owner = Database(owner_url)
    assert jobs.retain(owner).removed == 0  # the policy is 90 days
    monkeypatch.setattr(jobs, "RETENTION", Retention(idle=timedelta(microseconds=1), where=jobs.RETENTION.where))
    retained = jobs.retain(owner)
    assert (retained.removed, retained.skipped) == (1, 0)
    owner.engine.dispose()
    assert [one["id"] for one in client.get("/customers/ada/tickets").json()] == [kept]
    assert counts(database) == (1, 1), idle


def test_the_jobs_are_run(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    database.run("here", partial(service.open_ticket, customer_id="ada", subject="?"))
    jobs.main()  # DESK_URL is the owner's
    assert capsys.readouterr().out.startswith("answered 0 messages; Retained(removed=0")


def test_a_customer_is_erased_while_others_write(database: Database, client: TestClient) -> None:
    client.put("/customers/bob", params={"name": "Bob"}).raise_for_status()
    erased = [opened(client, "My refund!", "Hello?") for _ in range(2)]
    kept: str = client.post("/customers/bob/tickets", params={"subject": "?"}).json()
    seen: list[Event] = []

    def write_meanwhile(committed: Committed) -> None:
        if not seen:  # the first of them is erased: add another conversation, and a run
            seen.extend(committed.events)
            with store.begin() as uow:
                uow.conversations.add(Conversation("late", TicketInfo("ada")))

    with database.of("here") as store:
        store.subscribe(write_meanwhile)
        report = client.delete("/customers/ada").raise_for_status().json()
    assert (report["conversations"], report["runs"], report["left"]) == (3, 4, 0)
    assert (report["is_complete"], report["checked"], report["found_in"]) == (True, 1, {"here": 3})
    assert {one.conversation_id for one in seen} <= set(erased)
    assert counts(database) == (1, 1)
    assert client.get(f"/tickets/{kept}").status_code == 200
    assert client.post("/customers/ada/tickets", params={"subject": "?"}).status_code == 404
    again = client.delete("/customers/ada").raise_for_status().json()
    assert (again["conversations"], again["is_complete"]) == (0, True)
