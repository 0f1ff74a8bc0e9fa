"""Read the folders of Strands' ``FileSessionManager``: each session is a folder, with a file for each message."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from memory.errors import ConfigurationError
from memory.formats.builders import Draft, build
from memory.formats.openai import read_message
from memory.formats.registry import Source
from memory.formats.turns import Message
from memory.port.changes import Change
from memory.transfer.parsing import ParsedConversation, RejectedConversation, parse, try_parse

KEY: Final = "strands"
SESSION: Final = "session.json"
_PREFIX: Final = "session_"


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of each agent of a session; or those of all sessions, if the folder holds several.

    A conversation's id is that of the session; if the session has several agents, ``session/agent``.
    """
    folder = source.path
    if folder is None or not folder.is_dir():
        raise ConfigurationError(f"{source.name} is not a folder: name the storage_dir of the FileSessionManager")
    sessions = [folder] if (folder / SESSION).is_file() else sorted(file.parent for file in folder.glob(f"*/{SESSION}"))
    number = 0
    for session in sessions:
        agents = sorted(file.parent for file in session.glob("agents/*/agent.json"))
        for agent in agents:
            number += 1
            yield _try_read(number, partial(_read, source, session, agent, is_alone=len(agents) == 1))


def _try_read(number: int, read_agent: Callable[[], Change]) -> ParsedConversation | RejectedConversation:
    try:
        return try_parse(number, 0, read_agent)
    except OSError as error:
        return RejectedConversation(number, f"{error.filename}: {error.strerror}")


def _read(source: Source, session: Path, agent: Path, *, is_alone: bool) -> Change:
    about, state = _json_in(session / SESSION), _json_in(agent / "agent.json")
    id = about.get("session_id", session.name.removeprefix(_PREFIX))
    name = state.get("agent_id", agent.name.removeprefix("agent_"))
    files = sorted((agent / "messages").glob("message_*.json"), key=_number)
    rest: dict[str, Any] = {"session": about, "agent": state}
    messages = [_message(_json_in(file)) for file in files]
    times = about.get("created_at"), about.get("updated_at")
    return build(KEY, Draft(messages, id if is_alone else f"{id}/{name}", {}, rest, *times), source.name, source.at)


def _number(file: Path) -> tuple[int, str]:
    found = re.search(r"\d+", file.stem)
    return int(found[0]) if found else 0, file.name


def _json_in(file: Path) -> dict[str, Any]:
    value = parse(file.read_bytes().decode())
    return value if isinstance(value, dict) else {}


def _message(whole: dict[str, Any]) -> Message:
    """Return one message; a message that was redacted is shown as its replacement."""
    message = read_message(whole.get("redact_message") or whole.get("message"))
    id = whole.get("message_id")
    return message._replace(rest=whole, whole=whole, id=None if id is None else str(id), at=whole.get("created_at"))
