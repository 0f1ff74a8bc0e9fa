"""Queries to the index: a plan (`memory.port.index`) as the text of a query.

The text is made of field names, numbers and tokens (`tokens.py`) and of nothing else. The id is not in the index: criteria on it
are checked by reading.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from memory.adapters.redis.tokens import Tokens
from memory.domain.criteria import FieldCompares, Operator
from memory.port.index import Every, KeyBetween, KeyIn, Plan, Some, Unless

EXACT: Final = 2**53
"""The index has numbers below this one exactly, and others as the nearest double."""

_DEEPEST: Final = 40
"""Levels of a plan that go into a query's text, as 2.5 levels of parentheses each: above 120 the server's parser gives up."""

_MOST_TOKENS: Final = 20_000
"""Tokens in a query's text. Beyond that, reading conversations is cheaper."""

_FURTHEST: Final = 2**70  # beyond any number that is stored; Python's integers go on
_NOTHING: Final = "@entries:{none}"  # no token is as short as that


class Condition(NamedTuple):
    """The text of a condition, empty if every conversation meets it; and whether it matches exactly what was planned, or more."""

    text: str
    exact: bool = True


_TOO_MUCH: Final = Condition("", exact=False)


class Translation:
    """Translates a plan into the language of queries."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._tokens_left = _MOST_TOKENS
        self.all: Final = f"@entries:{{{tokens.everything}}}"

    def of(self, plan: Plan, depth: int = 0) -> Condition:
        """Return the condition of a plan, or one that matches more conversations."""
        if depth > _DEEPEST:
            return _TOO_MUCH
        match plan:
            case KeyIn():
                return self._one_of(self._tokens.equal(plan.path, plan.keys))
            case KeyBetween():
                return self._one_of(*self._tokens.between(plan))
            case FieldCompares():
                return _compares(plan)
            case Unless():
                part = self.of(plan.part, depth + 1)
                return Condition(self._unless(part.text or self.all)) if part.exact else _TOO_MUCH
            case Every():
                texts, exact = self._parts(plan.parts, depth)
                return Condition(f"({' '.join(filter(None, texts))})" if any(texts) else "", exact)
            case Some():
                texts, exact = self._parts(plan.parts, depth)
                if not texts or not all(texts):
                    return Condition("" if texts else _NOTHING, exact)
                if all(isinstance(part, KeyIn | KeyBetween | FieldCompares) for part in plan.parts):
                    return Condition(f"({' | '.join(texts)})", exact)
                # De Morgan: RediSearch 2.10 is wrong about an intersection with a negation in a union in an intersection.
                none = " ".join(f"-({text})" for text in texts)
                return Condition(self._unless(f"{self.all} {none}"), exact)

    def _parts(self, parts: Sequence[Plan], depth: int) -> tuple[list[str], bool]:
        conditions = [self.of(part, depth + 1) for part in parts]
        return [condition.text for condition in conditions], all(condition.exact for condition in conditions)

    def _one_of(self, tokens: Sequence[str], exact: bool = True) -> Condition:  # noqa: FBT001, FBT002  # as `between` returns it
        self._tokens_left -= len(tokens)
        if self._tokens_left < 0:
            return _TOO_MUCH
        return Condition(f"@entries:{{{'|'.join(tokens)}}}" if tokens else _NOTHING, exact)

    def _unless(self, text: str) -> str:
        return f"({self.all} -({text}))"


def _compares(compares: FieldCompares) -> Condition:
    field, operator, value = compares.field, compares.operator, compares.value
    if isinstance(value, str):
        return _TOO_MUCH  # the id
    exact = abs(value) < EXACT
    if not exact:  # a larger number may be the same double as its neighbours, so the bound itself is in question
        operator = cast(Operator, operator[0] + "=")
    bound = min(max(value, -_FURTHEST), _FURTHEST)
    bounds = {
        "==": f"{bound} {bound}",
        "<": f"-inf ({bound}",
        "<=": f"-inf {bound}",
        ">": f"({bound} +inf",
        ">=": f"{bound} +inf",
    }
    return Condition(f"@{field}:[{bounds[operator]}]", exact)
