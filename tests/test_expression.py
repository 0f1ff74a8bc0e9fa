import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory import Conversation, InvalidValueError, where
from memory.domain.criteria import AllOf, AnyOf, Criterion
from memory.domain.expressions import DEEPEST, LONGEST, parse

_NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "criterion"),
    [
        ('domain == "Restaurants"', where("domain") == "Restaurants"),
        ('  domain  !=\t"Restaurants"  ', where("domain") != "Restaurants"),
        ("priority < 3", where("priority") < 3),
        ("3 < priority", where("priority") > 3),
        ("3 >= priority", where("priority") <= 3),
        ('"ada" == customer', where("customer") == "ada"),
        ("1 <= x < 5", AllOf((where("x") >= 1, where("x") < 5))),
        ("1 < x < 5 > y", AllOf((where("x") > 1, where("x") < 5, where("y") < 5))),
        ("a == 1 and b == 2 and c == 3", AllOf((where("a") == 1, where("b") == 2, where("c") == 3))),
        ("a == 1 or b == 2 and c == 3", AnyOf((where("a") == 1, AllOf((where("b") == 2, where("c") == 3))))),
        ("not a == 1", ~(where("a") == 1)),
        ("(\n a == 1\n or b == 2\n)", AnyOf((where("a") == 1, where("b") == 2))),
        ("x in [1, 'a', None]", where("x").in_([1, "a", None])),
        ("x not in (1, 2)", ~where("x").in_([1, 2])),
        ("x in []", where("x").in_([])),
        ('"h" in services', where("services").contains("h")),
        ('"h" not in services', ~where("services").contains("h")),
        ("contains(services, 1)", where("services").contains(1)),
        ("services.contains([1])", where("services").contains([1])),
        ("exists(customer.tier)", where("customer.tier").exists()),
        ("customer.tier.exists()", where("customer.tier").exists()),
        ('startswith(name, "ab")', where("name").startswith("ab")),
        ('name.startswith("ab")', where("name").startswith("ab")),
        ('metadata["a.b"]["c"] == 1', where(("a.b", "c")) == 1),
        ('customer["odd key"].x == 1', where(("customer", "odd key", "x")) == 1),
        ('metadata[""] == 1', where(("",)) == 1),
        ("metadata.metadata == 1", where("metadata") == 1),
        ('id == "x"', where.id == "x"),
        ('id in ["x", "y"]', where.id.in_(["x", "y"])),
        ('metadata.id == "x"', where("id") == "x"),
        ('metadata["id"] == "x"', where("id") == "x"),
        ("run_count > 10", where.run_count > 10),
        ("metadata.run_count > 10", where("run_count") > 10),
        ('created_at >= "2026-01-01"', where.created_at >= _NEW_YEAR),
        ('updated_at < "2026-01-01T01:00:00+01:00"', where.updated_at < _NEW_YEAR),
        ('"2026-01-01T00:00:00Z" == updated_at', where.updated_at == _NEW_YEAR),
        ("x == None", where("x") == None),  # noqa: E711  # the criterion, not the value
        ("x == True", where("x") == True),  # noqa: E712
        ("x == true", where("x") == True),  # noqa: E712
        ("false == x", where("x") == False),  # noqa: E712
        ("x in [null, {'k': true}]", where("x").in_([None, {"k": True}])),
        ('metadata["true"] == true', where("true") == True),  # noqa: E712
        ("x == -1", where("x") == -1),
        ("x == +1.5e3", where("x") == 1500.0),
        ("x == -0.0", where("x") == -0.0),
        ("x == 1180591620717411303424", where("x") == 2**70),
        ("x == 1_000", where("x") == 1000),
        ('x == [1, {"k": [None]}]', where("x") == [1, {"k": [None]}]),
        (r'x == "\ud800\0é"', where("x") == "\ud800\0é"),
        ('größe == "L"', where("größe") == "L"),
        ("x == 'a' 'b'  # two strings", where("x") == "ab"),
    ],
)
def test_an_expression_means_the_criterion(text: str, criterion: Criterion) -> None:
    assert repr(parse(text)) == repr(criterion)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid syntax, at the end"),
        ("a ==", "invalid syntax, at the end"),
        ("a = 1", "write == to compare, at column 3"),
        ("a === 1", "write == to compare, at column 5"),
        ("a == 1 b", "invalid syntax, at column 8"),
        ("a", "a is a path, not a condition: write a == True, or exists.a., at column 1"),
        ("x == 1 and not a.b", "a.b is a path, not a condition.*, at column 16"),
        ("a == b", "two paths cannot be compared; write a string in quotes, at column 6"),
        ("1 == 1", "two values cannot be compared: one side must be a path, at column 1"),
        ("a in b", "two paths cannot be compared"),
        ("a in 5", "`in` must be followed by a list of values, or a path, at column 6"),
        ("a is None", "use == and != instead of `is` and `is not`, at column 6"),
        ("a < None", "only numbers and strings can be ordered, not None, at column 5"),
        ("a == 1e999", "inf: only finite numbers can be stored, at column 6"),
        ("a == 1j", "a value must be a string, a number, .*, at column 6"),
        ("a == b'x'", "a value must be a string"),
        ("a == f'{x}'", "a value must be a string"),
        ("a == ...", "a value must be a string"),
        ("a == 1 + 1", "a value must be a string"),
        ("3 == true", "two values cannot be compared"),
        ("a == -True", "a value must be a string"),
        ("a == {1: 2}", "the keys of a dict must be strings, at column 7"),
        ("a == {**b}", "the keys of a dict must be strings"),
        ("a == {[]: 1}", "the keys of a dict must be strings"),
        ("(a == 1) & (b == 2)", "only `and`, `or`, `not` and comparisons are allowed"),
        ("a[0] == 1", "only a string may be used as a subscript in a path, at column 3"),
        ("a[b] == 1", "only a string may be used as a subscript"),
        ("f(x).y == 1", "a path must begin with a name, at column 1"),
        ("metadata == 1", "metadata alone is not a path"),
        (
            "id.x == 1",
            "id is a field of the conversation itself and can only be compared; .* write metadata.id, at column 1",
        ),
        ("exists(id)", "id is a field of the conversation itself.*, at column 8"),
        ("run_count == 'a'", "run_count can only be compared with a.* int, not with 'a', at column 14"),
        ("created_at > 5", "created_at must be a time such as .*, not 5, at column 14"),
        ("created_at > 'x'", "created_at must be a time such as .*, not 'x', at column 14"),
        ("startswith(a, 1)", "startswith.. takes a str, not int, at column 15"),
        ("startswith(a)", "startswith.. takes a path and a value, at column 1"),
        ("exists(a, b=1)", "exists.. takes a path, at column 1"),
        ("exists(*a)", "exists.. takes a path"),
        ("exists('a')", "a path must begin with a name, at column 8"),
        ("__import__('os').system('ls')", "there is no function system"),
        ("eval('1')", "there is no function eval"),
        ("(lambda: 1)()", "there is no function"),
        ("[x for x in y]", "a condition must compare a path with a value"),
        ("(a := 1)", "a condition must compare a path with a value"),
        ("a == 'é' and b", "b is a path, not a condition.*, at column 14"),  # characters are counted, not bytes
        ("(a == 1\n and b)", "b is a path, not a condition.*, at column 14"),
        ("\ufb01 == 1", "write it as a string"),  # a ligature that Python takes for "fi"
        ("a.\ufb01 == 1", "write it as a string"),
        ("a == '\0'", "null bytes"),
        ("a == '\ud800'", "cannot be read"),
        ("a" * (LONGEST + 1), "at most 10,000 characters, not 10,001"),
        ("not " * DEEPEST + "a == 1", "nests deeper than 50 levels"),
        ("a == " + "[" * 90 + "]" * 90, "nests deeper than 50 levels"),
        ("a == " + "9" * 5000, "4300 digits"),
        ("metadata" + ".a" * 101 + " == 1", "a path may have at most 100 levels, at column 1"),
    ],
)
def test_what_is_none_is_refused_with_its_column(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 4000, "a" + ".a" * 4900 + " == 1", "a == " + "-" * 9000 + "1", "not " * 2400 + "a", "[" * 99]
)
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse(text)


def test_something_else_than_text_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="an expression must be a str, not 5"):
        parse(5)  # type: ignore[arg-type]


_PIECES = st.sampled_from(
    [
        "a",
        "metadata",
        "id",
        "created_at",
        '"x"',
        "1",
        "-",
        "==",
        "<",
        "in",
        "not",
        "and",
        "or",
        "[",
        "]",
        "(",
        ")",
        ".",
        ",",
        "{",
        "}",
        ":",
        "exists",
        "startswith",
        "None",
        "is",
        "\\",
        "'",
        "é",
        "lambda",
        "*",
        "0x",
        "1e9",
    ]
)


@given(st.text(max_size=40) | st.lists(_PIECES, max_size=14).map(" ".join))
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")  # Python's parser may say more
def test_no_text_does_anything_but_make_a_criterion_or_an_error_of_ours(text: str) -> None:
    modules = set(sys.modules)
    try:
        criterion = parse(text)
    except InvalidValueError:
        return
    assert isinstance(criterion, Criterion)
    assert isinstance(criterion.matches(Conversation("x", metadata={"a": 1})), bool)
    assert set(sys.modules) == modules


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(_VALUES)
def test_every_value_can_be_written_as_python_writes_it(value: Any) -> None:
    assert repr(parse(f"x == {value!r}")) == repr(where("x") == value)
