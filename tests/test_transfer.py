import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memory
from memory import AlreadyExistsError, Conversation, InvalidValueError, Run, Store, where
from memory.domain.values import Json, encode, encode_parsed
from memory.port.changes import ChangeSet, Receipt
from memory.transfer import (
    Limits,
    ParsedConversation,
    RejectedConversation,
    Totals,
    dump,
    read_lines,
    restore,
    uncompressed,
)

ODD_VALUES: list[Json] = [
    2**70,
    -(2**63),
    -0.0,
    1.0,
    5e-324,
    "",
    " ",
    "\0",
    "\ud800",  # lone surrogates
    "\udfff\ud800",
    "\ud83d\ude00",  # two code points that JSON would make one of
    "\U0001f600",
    "\u2028 \x85 \x1b[31m",
    [],
    {},
    {"": None, "\ud83d\ude00": ["\ud83d\ude00", {"a": "é\xff"}]},
    [True, False, None, 1, 1.5],
]


@pytest.fixture
def store() -> Iterator[Store]:
    with memory.connect("memory://") as store:
        yield store


@pytest.fixture
def other() -> Iterator[Store]:
    with memory.connect("memory://") as store:
        yield store


def export(store: Store) -> str:
    return "".join(dump(store))


def lines_of(text: str | bytes) -> Iterator[ParsedConversation | RejectedConversation]:
    return read_lines(io.BytesIO(text.encode() if isinstance(text, str) else text))


def line(id: str = "a", **fields: object) -> str:
    return json.dumps({"id": id, **fields}) + "\n"


def reasons(*lines: str | bytes) -> list[tuple[int, str]]:
    text = b"\n".join(one.encode() if isinstance(one, str) else one for one in lines)
    return [(read.number, read.reason) for read in lines_of(text) if isinstance(read, RejectedConversation)]


def fill_with_odd_things(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(days=1, microseconds=1)
    with store.begin() as uow:
        for number, value in enumerate(ODD_VALUES):
            uow.conversations.add(Conversation(f"odd {number}", metadata={"value": value, "é": 1}))
            uow.runs.append(
                f"odd {number}", Run(value, "plain"), Run("plain", value, {"value": value}, id=f"'run' {number}")
            )
        uow.conversations.add(Conversation("\U0001f600 '; drop", expires_at=soon))
        uow.conversations.add(Conversation("gaps"))
        uow.runs.append("gaps", *[Run(number, None) for number in range(600)])
    with store.begin() as uow:
        uow.conversations.get("odd 1").metadata["version"] = "two"
        uow.runs.remove("gaps", 1, 300, 600)
        uow.runs.replace("gaps", Run("new", "text", position=301))


def test_a_second_store_has_the_same_to_the_last_byte(store: Store, other: Store) -> None:
    fill_with_odd_things(store)
    text = export(store)
    totals = restore(other, lines_of(text))
    assert totals == Totals(conversations=len(ODD_VALUES) + 2, runs=2 * len(ODD_VALUES) + 597)
    assert export(other) == text


def test_a_second_store_gives_equal_conversations_and_runs(store: Store, other: Store) -> None:
    fill_with_odd_things(store)
    restore(other, lines_of(export(store)))
    with store.begin() as left, other.begin() as right:
        for conversation in left.conversations.iterate():
            twin = right.conversations.get(conversation.id)
            assert repr(twin.metadata) == repr(conversation.metadata)
            assert twin.record is not None
            assert conversation.record is not None
            assert twin.record._replace(incarnation="") == conversation.record._replace(incarnation="")
            assert repr(right.runs.list(twin.id)) == repr(left.runs.list(conversation.id))


def test_positions_count_on_where_they_had_come_to(store: Store, other: Store) -> None:
    fill_with_odd_things(store)
    restore(other, lines_of(export(store)))
    with other.begin() as uow:
        uow.runs.append("gaps", Run("next", None))
    with other.begin() as uow:
        assert [run.position for run in uow.runs.last("gaps", 2)] == [599, 601]


_TEXT = st.text(st.characters(codec=None, categories=("L", "Cs", "Cc", "Zs", "Po", "So")), max_size=6)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=3), _VALUES, _VALUES)
def test_any_values_come_back_as_they_were(metadata: dict[str, Json], said: Json, answer: Json) -> None:
    with memory.connect("memory://") as store, memory.connect("memory://") as other:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", metadata=metadata))
            uow.runs.append("a", Run(said, answer, metadata))
        restore(other, lines_of(export(store)))
        with other.begin() as uow:
            (run,) = uow.runs.list("a")
            assert repr(uow.conversations.get("a").metadata) == repr(metadata)
            assert repr((run.input, run.output, run.metadata)) == repr((said, answer, metadata))


@given(_VALUES)
def test_what_json_has_read_gets_the_same_text_by_the_short_way(value: Json) -> None:
    value = json.loads(json.dumps(value))
    assert encode_parsed(value, "value") == encode(value, "value")


@pytest.mark.parametrize("depth", [99, 100])
def test_a_value_may_nest_a_hundred_levels_and_no_more(depth: int) -> None:
    text = '{"id":"a","runs":[{"input":1,"output":' + "[" * (depth + 1) + "1" + "]" * (depth + 1) + "}]}"
    refused = reasons(text)
    assert bool(refused) == (depth == 100)
    assert all("runs[0]: output" in reason and "deeper than 100 levels" in reason for _, reason in refused)


def test_a_file_of_another_hand_needs_little(store: Store) -> None:
    restore(store, lines_of(line("a") + line("b", metadata={"n": 1}, runs=[{"input": "x", "output": None}] * 2)))
    with store.begin() as uow:
        assert (uow.conversations.get("a").version, uow.conversations.get("a").run_count) == (1, 0)
        conversation = uow.conversations.get("b")
        assert (conversation.version, conversation.run_count, conversation.last_position) == (1, 2, 2)
        runs = uow.runs.list("b")
        assert [(run.position, run.input, run.output, run.metadata) for run in runs] == [
            (1, "x", None, {}),
            (2, "x", None, {}),
        ]
        assert len({run.id for run in runs}) == 2
        assert conversation.created_at == conversation.updated_at == runs[0].created_at


def test_blank_lines_a_byte_order_mark_and_a_last_line_without_an_end_are_no_trouble(store: Store) -> None:
    restored = restore(
        store, lines_of(b"\xef\xbb\xbf" + line("a").encode() + b"\n  \r\n" + line("b").rstrip().encode())
    )
    assert restored == Totals(conversations=2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not JSON: Expecting value at column 1"),
        ('{"id": "a"', "not JSON: "),
        ('{"id": "a"} {}', "not JSON: Extra data at column 13"),
        (b'{"id": "\xff"}', "not UTF-8: invalid start byte at byte 9"),
        (b'{"id": "a", "metadata": {"x": "\xed\xa0\x80"}}', "not UTF-8"),
        ("[1]", "it must be an object, not list"),
        ("null", "it must be an object, not NoneType"),
        ("{}", "it has no id"),
        (line(id=""), "id must have 1 to 2,048 characters"),
        ('{"id": 5}', "id must be a str, not int"),
        (line("a\n"), "id must not contain control characters"),
        (line(namespace=""), "namespace must have 1 to 255 characters"),
        (line(namespace=None), "namespace must be a str, not NoneType"),
        (line("x" * 2049), "id must have 1 to 2,048 characters, not 2,049"),
        (line(metadat={}), "unknown key 'metadat'; there are: "),
        (line(metadata=[]), "metadata must be an object, not list"),
        (line(metadata=None), "metadata must be an object, not NoneType"),
        ('{"id": "a", "metadata": {"x": [1, NaN]}}', "metadata.x[1] is nan: only finite numbers can be stored"),
        ('{"id": "a", "metadata": {"x": 1e999}}', "metadata.x is inf"),
        ('{"id": "a", "metadata": {"x": ' + "9" * 4301 + "}}", "4300 digits"),
        ('{"id": "a", "metadata": {"x": ' + "9" * 4300 + "}}", "metadata.x is an integer of more than 4,300 digits"),
        ('{"id": "a", "metadata": ' + "[" * 100_000, "it is nested too deeply"),
        (line(runs={}), "runs must be a list, not dict"),
        (line(runs=[5]), "runs[0]: it must be an object, not int"),
        (line(runs=[{"input": 1, "output": 2}, {"output": 2}]), "runs[1]: it has no input"),
        (line(runs=[{"input": 1}]), "runs[0]: it has no output"),
        (line(runs=[{"input": 1, "output": 2, "metadata": 3}]), "runs[0]: metadata must be an object, not int"),
        (line(runs=[{"input": 1, "output": 2, "role": 3}]), "runs[0]: unknown key 'role'"),
        (line(runs=[{"input": 1, "output": 2, "id": ""}]), "runs[0]: id must have"),
        (line(runs=[{"input": 1, "output": 2, "created_at": "x"}]), "runs[0]: created_at must be a time such as"),
        (line(runs=[{"input": 1, "output": 2, "position": 0}]), "runs[0]: position must be an integer from 1"),
        (line(runs=[{"input": 1, "output": 2, "position": True}]), "runs[0]: position must be an integer from 1"),
        (line(runs=[{"input": 1, "output": 2, "position": 2**53}]), "runs[0]: position must be an integer from 1"),
        (line(runs=[{"input": 1, "output": 2, "position": 3}] * 2), "runs[1]: position must be an integer from 4"),
        (
            line(runs=[{"input": 1, "output": 2, "position": 3}], last_position=2),
            "last_position must be an integer from 3",
        ),
        (line(version=0), "version must be an integer from 1"),
        (line(version="1"), "version must be an integer from 1"),
        (line(version=2**63), "version must be an integer from 1"),
        (line(created_at=5), "created_at must be a time such as '2026-01-31T12:00:00Z', not 5"),
        (line(updated_at="0001-01-01T00:00:00+23:59"), "updated_at must be a time such as"),
        (line(expires_at=None), "expires_at must be a time such as"),
        (line(byte_strings="metadata"), "byte_strings must be a sorted list of fields"),
        (line(byte_strings=[[]]), "byte_strings must be a sorted list of fields"),
        (line(byte_strings=["input"]), "byte_strings must be a sorted list of fields"),
        (
            line(byte_strings=["metadata"], metadata={"x": "\u0100"}),
            "metadata is in byte_strings, but not all its strings",
        ),
        (
            line(byte_strings=["metadata"], metadata={"x": "\xff"}),
            "metadata is in byte_strings, but not all its strings",
        ),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_reason(text: str | bytes, reason: str) -> None:
    ((number, told),) = reasons(line("before"), text, line("after"))
    assert number == 3  # `line` ends in a line break of its own
    assert reason in told


def test_a_bad_line_is_told_and_the_rest_goes_on(store: Store) -> None:
    told: list[RejectedConversation] = []
    totals = restore(
        store, lines_of(line("a") + "nonsense\n" + line("b") + line("c", version=0)), on_refusal=told.append
    )
    assert totals == Totals(conversations=2, refused=2)
    assert [refusal.number for refusal in told] == [2, 4]


def test_a_line_without_end_is_skipped_without_being_held() -> None:
    stream = io.BytesIO(line("a").encode() + b"x" * 5_000_000 + b"\n" + line("b").encode())
    assert [type(read) for read in read_lines(stream, limits=Limits(line=1000))] == [
        ParsedConversation,
        RejectedConversation,
        ParsedConversation,
    ]


def test_a_line_of_just_the_longest_length_is_read() -> None:
    whole = line("a").encode()
    for text in (whole, whole.rstrip()):
        assert [type(read) for read in read_lines(io.BytesIO(text), limits=Limits(line=len(text)))] == [
            ParsedConversation
        ]


@pytest.mark.parametrize("compressed", ["no", "once", "in two members"])
def test_gzip_is_told_by_the_first_bytes(compressed: str) -> None:
    data = line("a").encode()
    if compressed != "no":
        data = gzip.compress(data) if compressed == "once" else gzip.compress(data[:9]) + gzip.compress(data[9:])
    stream = io.BufferedReader(io.BytesIO(data))
    assert [type(read) for read in read_lines(uncompressed(stream))] == [ParsedConversation]


def test_compressed_data_that_breaks_off_is_told_after_what_could_be_read() -> None:
    packed = gzip.compress(b"".join(line(f"{number:050}").encode() for number in range(5000)))
    for broken in (packed[: len(packed) // 2], packed[:-8] + b"\0" * 8):
        *read, last = read_lines(uncompressed(io.BufferedReader(io.BytesIO(broken))))
        assert read
        assert all(isinstance(one, ParsedConversation) for one in read)
        assert isinstance(last, RejectedConversation)
        assert "cannot be read from here on" in last.reason


def priorities(store: Store) -> dict[str, Json]:
    with store.begin() as uow:
        return {
            conversation.id: conversation.metadata.get("n") for conversation in uow.conversations.iterate(order="id")
        }


def numbered(*numbers: tuple[str, int]) -> Iterator[ParsedConversation | RejectedConversation]:
    return lines_of("".join(line(id, metadata={"n": number}) for id, number in numbers))


def test_what_exists_is_skipped(store: Store) -> None:
    restore(store, numbered(("b", 1), ("d", 1)))
    totals = restore(store, numbered(("a", 2), ("b", 2), ("c", 2), ("d", 2), ("a", 3)))
    assert totals == Totals(conversations=2, skipped=3)
    assert priorities(store) == {"a": 2, "b": 1, "c": 2, "d": 1}


def test_what_exists_is_replaced_with_its_runs(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("b"))
        uow.runs.append("b", Run(1, 1))
    assert restore(store, numbered(("a", 2), ("b", 2), ("a", 3)), on_conflict="replace") == Totals(conversations=3)
    assert priorities(store) == {"a": 3, "b": 2}
    with store.begin() as uow:
        assert uow.runs.list("b") == []


def test_what_exists_stops_the_import_after_the_lines_before_it(store: Store) -> None:
    restore(store, numbered(("b", 1)))
    totals = Totals()
    with pytest.raises(AlreadyExistsError, match="line 2: conversation 'b' already exists"):
        restore(store, numbered(("z", 2), ("b", 2), ("a", 2)), on_conflict="fail", totals=totals)
    assert totals == Totals(conversations=1)
    assert priorities(store) == {"b": 1, "z": 2}


def test_an_expired_conversation_is_in_nobodys_way(store: Store) -> None:
    past = "2020-01-01T00:00:00Z"
    assert restore(store, lines_of(line("a", expires_at=past) + line("a"))) == Totals(conversations=2)
    assert priorities(store) == {"a": None}


def test_an_unknown_way_out_of_conflicts_is_refused(store: Store) -> None:
    with pytest.raises(InvalidValueError, match="on_conflict must be one of skip, update, replace, fail, not 'merge'"):
        restore(store, [], on_conflict="merge")  # type: ignore[arg-type]


def test_what_the_store_cannot_keep_is_a_bad_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Store.commit

    def refuse_some(self: Store, changes: ChangeSet) -> Receipt:
        if bad := [change.id for change in changes.changes if int(change.id) % 7 == 3]:
            raise InvalidValueError(f"{bad[0]} is too large")
        return commit(self, changes)

    monkeypatch.setattr(Store, "commit", refuse_some)
    told: list[RejectedConversation] = []
    totals = restore(store, numbered(*((str(n), n) for n in range(20))), on_refusal=told.append)
    assert told == [RejectedConversation(n + 1, f"{n} is too large") for n in (3, 10, 17)]
    assert totals == Totals(conversations=17, refused=3)


def test_a_refused_batch_is_divided_rather_than_written_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, commits = Store.commit, list[int]()

    def refuse_large(self: Store, changes: ChangeSet) -> Receipt:
        commits.append(len(changes.changes))
        if len(changes.changes) > 30:
            raise InvalidValueError("more than this store writes in one commit")
        return commit(self, changes)

    monkeypatch.setattr(Store, "commit", refuse_large)
    assert restore(store, numbered(*((str(n), n) for n in range(100)))) == Totals(conversations=100)
    assert commits == [100, 50, 25, 25, 50, 25, 25]
    assert list(priorities(store)) == sorted(map(str, range(100)))


def test_an_id_that_is_taken_and_cannot_be_read_is_skipped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Store, changes: ChangeSet) -> Receipt:
        raise AlreadyExistsError(f"conversation {changes.changes[0].id!r} is damaged")

    monkeypatch.setattr(Store, "commit", refuse)
    assert restore(store, numbered(("a", 1), ("b", 1), ("c", 1))) == Totals(skipped=3)


def test_each_line_goes_to_the_namespace_it_names(store: Store, other: Store) -> None:
    for name in ("default", "b", "a/b \u00e9"):
        with store.namespace(name).begin() as uow:
            for id in ("x", name):
                uow.conversations.add(Conversation(id, {"of": name}))
                uow.runs.append(id, Run(name, name))
    text = "".join(dump(store, all_namespaces=True))
    restored = restore(other.namespace("of no account"), lines_of(text), all_namespaces=True)
    assert restored == Totals(conversations=6, runs=6)
    assert other.namespaces() == store.namespaces()
    assert "".join(dump(other, all_namespaces=True)) == text
    again = restore(other, lines_of(text + line("x") + line("x")), all_namespaces=True)
    assert again == Totals(skipped=8)


def test_lines_of_one_namespace_go_wherever_they_are_sent(store: Store, other: Store) -> None:
    restore(store.namespace("a"), numbered(("x", 1)))
    text = export(store.namespace("a"))
    restore(other.namespace("b"), lines_of(text + line("y", namespace="a")))
    assert (other.namespaces(), priorities(other.namespace("b"))) == (["b"], {"x": 1, "y": None})
    with pytest.raises(InvalidValueError, match="line 2 is of namespace 'c', earlier ones of 'a'"):
        restore(other.namespace("d"), lines_of(text + line("x", namespace="c")))


def test_a_conversation_is_written_in_one_commit_and_commits_stay_small(store: Store) -> None:
    sizes: list[int] = []
    store.subscribe(lambda committed: sizes.append(sum(len(change.append) for change in committed.changes.changes)))
    runs = [{"input": 1, "output": 2}]
    restore(
        store, lines_of(line("huge", runs=runs * 20_000) + "".join(line(str(n), runs=runs * 100) for n in range(120)))
    )
    assert sizes[0] == 20_000
    assert sum(sizes) == 32_000
    assert max(sizes[1:]) <= 5_000


def _peak_of_import(url: str, conversations: int) -> int:
    runs = [{"input": "x" * 400, "output": "y" * 400}] * 10
    stream = (Arrival_ for n in range(conversations) for Arrival_ in lines_of(line(str(n), runs=runs)))
    with memory.connect(url) as store:
        store.migrate()
        tracemalloc.start()
        try:
            assert restore(store, stream).conversations == conversations
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_a_longer_file_takes_no_more_memory(tmp_path: Any) -> None:
    short = _peak_of_import(f"sqlite:///{tmp_path}/short.db", 700)
    longer = _peak_of_import(f"sqlite:///{tmp_path}/longer.db", 2800)
    assert longer < 1.2 * short


def test_a_conversation_of_any_length_is_written_in_small_pieces(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("long"))
        uow.runs.append("long", *[Run("x" * 100, "y") for _ in range(3000)])
    pieces = list(dump(store))
    assert max(map(len, pieces)) < 500
    assert [piece for piece in pieces if piece.endswith("\n")] == ["]}\n"]


def test_a_part_is_exported_in_the_order_that_is_asked_for(store: Store) -> None:
    restore(store, numbered(("a", 1), ("b", 2), ("c", 3)))
    text = "".join(dump(store, where("n") >= 2, order="-id"))
    assert [json.loads(one)["id"] for one in text.splitlines()] == ["c", "b"]


def test_runs_appended_while_a_conversation_is_exported_are_left_out(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", *[Run(n, n) for n in range(3)])
    pieces = dump(store)
    head = next(pieces)
    with store.begin() as uow:
        uow.runs.append("a", Run("late", "late"))
    read = json.loads(head + "".join(pieces))
    assert (read["last_position"], len(read["runs"])) == (3, 3)


def test_every_line_is_json_in_utf_8(store: Store) -> None:
    fill_with_odd_things(store)
    for line in export(store).encode().split(b"\n")[:-1]:
        assert json.loads(line)["id"]


def test_text_is_exported_as_people_write_it_and_read_with_escapes_too(store: Store) -> None:
    lines = read_lines(io.BytesIO(line("é", metadata={"wörter": "Grüße"}).encode()))
    restore(store, lines)
    text = export(store)
    assert '"id":"é","metadata":{"wörter":"Grüße"}' in text
    again = memory.connect("memory://")
    restore(again, read_lines(io.BytesIO(text.encode())))
    assert export(again) == text
