"""Read the database of the Agent Development Kit's ``DatabaseSessionService``, if it is a sqlite file."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from memory.formats import sqlite_files
from memory.formats.builders import Draft
from memory.formats.registry import Source
from memory.formats.sqlite_files import Query, Row, json_of, kept
from memory.formats.texts import shown
from memory.formats.turns import Message, Role
from memory.transfer.parsing import ParsedConversation, RejectedConversation

KEY: Final = "adk"
TABLES: Final = frozenset(["sessions", "events", "app_states", "user_states"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the sessions of a file one by one.

    A conversation's id is ``app/user/session``, because a session's id is unique only for its user. The app, the user and the
    session's state are metadata; ``adk`` has the states of the app and of the user. Actions that an older release has pickled
    are left out: unpickling them would run code.
    """
    return sqlite_files.read(source, KEY, _find)


def _find(query: Query) -> Iterator[Callable[[], Draft]]:
    for session in query("SELECT * FROM sessions ORDER BY create_time, app_name, user_id, id"):
        yield partial(_read, query, session)


def _read(query: Query, session: Row) -> Draft:
    app, user, id = session["app_name"], session["user_id"], session["id"]
    events = query(
        "SELECT * FROM events WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY timestamp, rowid",
        app,
        user,
        id,
    )
    (user_state,) = query("SELECT state FROM user_states WHERE app_name = ? AND user_id = ?", app, user) or [
        {"state": None}
    ]
    (app_state,) = query("SELECT state FROM app_states WHERE app_name = ?", app) or [{"state": None}]
    return Draft(
        [_message(event) for event in events],
        "/".join(part.replace("%", "%25").replace("/", "%2F") for part in (app, user, id)),
        {"app_name": app, "user_id": user, "state": json_of(session["state"])},
        {"app_state": json_of(app_state["state"]), "user_state": json_of(user_state["state"])},
        session["create_time"],
        session["update_time"],
    )


def _message(event: Row) -> Message:
    whole = (
        json_of(event["event_data"]) if "event_data" in event else {**kept(event), "content": json_of(event["content"])}
    )
    content = whole.get("content")
    value = shown(content.get("parts")) if isinstance(content, dict) else None
    role: Role = "question" if whole.get("author") == "user" else "answer"
    return Message(role if value else "context", value, whole, whole, whole.get("id"), event["timestamp"])
