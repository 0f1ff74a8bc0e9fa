"""The stores of frameworks: files that their real packages wrote (OpenAI Agents 0.24, Strands 1.62, ADK 2.13, LangChain 1.8)."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from memory import Store
from memory.errors import ConfigurationError
from memory.formats.registry import Source, read
from tests.formats.conftest import SAMPLES, Importing, kept, pairs

RAIN = [("Will it rain?", "Yes.")]
REFUND = [("Where is my refund?", "It left on Monday.")]
Database = Callable[[str], Path]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Make the database of which a sample is the text."""

    def make(name: str) -> Path:
        file = tmp_path / f"{name} 100%.db"
        connection = sqlite3.connect(file)
        connection.executescript((SAMPLES / f"{name}.sql").read_text())
        connection.close()
        return file

    return make


def test_sessions_of_openai_agents(importing: Importing, store: Store, database: Database) -> None:
    assert importing(None, database("openai_agents"))[1] == []
    assert pairs(store) == {"support-42": REFUND, "support-43": RAIN}
    conversation, runs = kept(store, "support-43")
    assert [item.get("type") for item in runs[0].metadata["openai"]["messages"]] == [
        None, "reasoning", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    assert conversation.created_at == runs[0].created_at
    assert runs[0].created_at.year == 2026


def test_sessions_of_langchain(importing: Importing, store: Store, database: Database) -> None:
    assert importing(None, database("langchain"))[1] == []
    assert pairs(store) == {"support-42": RAIN, "support-43": REFUND}
    messages = kept(store, "support-42")[1][0].metadata["langchain"]["messages"]
    assert [message["type"] for message in messages] == ["system", "human", "ai", "tool", "ai"]
    assert messages[2]["data"]["tool_calls"][0]["name"] == "forecast"


def test_sessions_of_adk(importing: Importing, store: Store, database: Database) -> None:
    assert importing(None, database("adk"))[1] == []
    assert pairs(store) == {"desk/ada/support-42": RAIN, "desk/bob/support-42": []}
    conversation, runs = kept(store, "desk/ada/support-42")
    assert conversation.metadata == {
        "app_name": "desk",
        "user_id": "ada",
        "state": {"topic": "weather", "n": 1},
        "adk": {"app_state": {"v": 1}, "user_state": {"tier": "gold"}},
    }
    events = runs[0].metadata["adk"]["messages"]
    assert events[0]["actions"]["state_delta"] == {"n": 1}
    assert events[2]["content"]["parts"][0]["function_response"]["response"] == {"result": "rain"}


@pytest.mark.parametrize("name", ["llm", "llm_0.27"])
def test_logs_of_llm_in_both_schemas(importing: Importing, store: Store, database: Database, name: str) -> None:
    assert importing(None, database(name))[1] == []
    found = pairs(store)
    others = [] if name == "llm_0.27" else [[("Alone?", "Yes.")]]
    assert list(found.values()) == [[*REFUND, ("Really?", "Yes.")], *others]
    conversation, runs = kept(store, next(iter(found)))
    assert conversation.metadata["title"] == "Where is my refund?"
    assert "Be brief." in str(runs[0].metadata)
    assert runs[0].created_at.year == 2026


def test_sessions_of_strands(importing: Importing, store: Store) -> None:
    folder = SAMPLES / "strands"
    for source in (folder, folder / "session_support-42"):
        importing(None, source, on_conflict="replace")
    assert pairs(store) == {"support-42": [*RAIN, ("Thanks", "You are welcome.")]}
    conversation, runs = kept(store, "support-42")
    assert conversation.metadata["strands"]["agent"]["state"] == {"n": 1}
    assert runs[0].metadata["strands"]["messages"][2]["message"]["content"][0]["toolResult"]["status"] == "success"


def test_two_agents_of_a_session_are_two_conversations(tmp_path: Path, importing: Importing, store: Store) -> None:
    for agent in ("one", "two"):
        folder = tmp_path / "session_s" / "agents" / f"agent_{agent}"
        (folder / "messages").mkdir(parents=True)
        (folder / "agent.json").write_text("{}")
        for number, role in enumerate(["user", "assistant"] * 6):
            text = f'{{"message": {{"role": "{role}", "content": [{{"text": "{agent} {number}"}}]}}, "message_id": {number}}}'
            (folder / "messages" / f"message_{number}.json").write_text(text)
    (tmp_path / "session_s" / "session.json").write_text('{"session_id": "s"}')
    (tmp_path / "session_s" / "agents" / "agent_two" / "messages" / "message_3.json").write_text("{")
    _, refusals = importing("strands", tmp_path)
    assert len(refusals) == 1
    assert pairs(store) == {"s/one": [(f"one {n}", f"one {n + 1}") for n in range(0, 12, 2)]}


def test_a_conversation_that_cannot_be_read_leaves_the_others(
    importing: Importing, store: Store, database: Database
) -> None:
    file = database("openai_agents")
    connection = sqlite3.connect(file)
    connection.execute("UPDATE agent_messages SET message_data = 'nonsense' WHERE id = 1")
    connection.commit()
    connection.close()
    _, refusals = importing(None, file)
    assert [refusal[:12] for refusal in refusals] == ["1: not JSON:"]
    assert pairs(store) == {"support-43": RAIN}


def test_a_database_is_only_read(database: Database, importing: Importing) -> None:
    file = database("adk")
    before = file.read_bytes()
    file.chmod(0o444)
    importing(None, file)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_database_of_another_kind_is_refused_by_its_tables(importing: Importing, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE bookmarks (id)")
    connection.close()
    assert importing(None, file)[1] == ["1: a database with the tables bookmarks is of no known format"]
    file.write_bytes(file.read_bytes()[:16] + b"\xff" * 500)
    assert importing("adk", file)[1][0].startswith("1: the database cannot be read from here on: ")
    assert importing(None, file)[1][0].startswith("1: a database with the tables (none)")


def test_a_database_or_a_folder_needs_a_path() -> None:
    with pytest.raises(ConfigurationError, match="from a file of its own"):
        list(read("adk", Source("-", 0)))
    with pytest.raises(ConfigurationError, match="is not a folder"):
        list(read("strands", Source("-", 0)))
