"""Strategies for random values, including the unusual ones that stores often get wrong."""

from hypothesis import strategies as st

from memory.domain.values import Json

LONG = "prefix " * 40  # more than 256 bytes

# "\ud83d\ude00" is a surrogate pair as two code points: not the emoji.
ODD_STRINGS = (
    *("", " ", "\x00", "a\x00b", "\x00\xff\x01", "\uffff", "e\u0301", "\u00e9", "\u2028\ufeff", "\x7f\x85\r\n"),
    *("Grüße an alle", "你好世界", "ƒ\x00世界"),
    *("\ud83d", "\udc00\ud83d", "\ud83d\ude00", "😀"),
    *("'; drop table runs; --", '"\\', "%_*?[a]", "null", "1", "a.b", "$x", "a/b:c"),
    *(LONG, LONG + "a", LONG + "b"),
)
ODD_NUMBERS: tuple[int | float, ...] = (
    *(0, 0.0, -0.0, 1, 1.0, -1, 0.1, 5e-324, 1.7976931348623157e308, float(2**53)),
    *(2**53, 2**53 + 1, -(2**53) - 1, -(2**23), -(2**23) - 1, 2**63, -(2**63) - 1, 2**70, 10**4000),
)
CONSTANTS: tuple[Json, ...] = (None, True, False)

strings = st.sampled_from(ODD_STRINGS) | st.text(st.characters(codec=None), max_size=8)
numbers = st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars: st.SearchStrategy[Json] = st.sampled_from(CONSTANTS) | strings | numbers
values: st.SearchStrategy[Json] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4), max_leaves=10
)
metadata: st.SearchStrategy[dict[str, Json]] = st.dictionaries(strings, values, max_size=5)
