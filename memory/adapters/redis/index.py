"""Queries of the index: answered whole, or not at all."""

from collections.abc import Callable, Mapping
from typing import Final, cast

from memory.adapters.redis.keys import Keys
from memory.adapters.redis.wire import Argument, RefusedError, Script, Wire
from memory.errors import PersistenceError, StoreUnavailableError

_SHARE: Final = 0.8
_PAGE: Final = Script("shared", "page")


class Index:
    """The index of one store.

    Args:
        wire: the connections.
        keys: the names of keys.
        explain: returns the error of ours that a search the server refused means.
    """

    def __init__(self, wire: Wire, keys: Keys, explain: Callable[[Exception], PersistenceError]) -> None:
        self._wire = wire
        self._name = keys.index
        self._explain = explain

    @property
    def milliseconds(self) -> int:
        """The time that the server may take for a query: most of what is left, so that it can say that it gave up."""
        return max(1, round(1000 * _SHARE * self._wire.seconds_left))

    def aggregate(self, query: str, *steps: Argument) -> list[Mapping[bytes, bytes]]:
        """Return the rows that FT.AGGREGATE makes of what a query finds."""
        command = ("FT.AGGREGATE", self._name, query, *steps, "TIMEOUT", self.milliseconds, "DIALECT", 2)
        (answer,) = self._wire.ask_all(command)
        if isinstance(answer, Exception):
            raise self._explain(answer) from answer
        if answer[b"warning"]:
            raise self._cut_short(b"; ".join(answer[b"warning"]))
        return [result[b"extra_attributes"] for result in answer[b"results"]]

    def count(self, query: str) -> int:
        """Return how many conversations a query finds."""
        # Not LIMIT 0 0, whose total says nothing of a query that was cut short (RediSearch 2.10).
        rows = self.aggregate(query, "GROUPBY", 0, "REDUCE", "COUNT", 0, "AS", "n")
        if rows and b"n" not in rows[0]:  # where time-outs are to fail, it fails without a word
            raise self._cut_short(b"")
        return int(rows[0][b"n"]) if rows else 0

    def keys_found(self, query: str, limit: int) -> list[str]:
        """Return the keys of some of the conversations that a query finds, in no order."""
        rows = self.aggregate(query, "LIMIT", 0, limit, "LOAD", 1, "@__key")
        return [row[b"__key"].decode() for row in rows if b"__key" in row]

    def page(self, query: str, size: int, *arguments: Argument) -> list[list[bytes]]:
        """Return the first rows of what a query finds, in an order; `page.lua` says what it takes."""
        try:
            warning, *rows = self._wire.read(_PAGE, (), [self._name, query, self.milliseconds, size, *arguments])
        except RefusedError as error:
            raise self._explain(error.refusal) from error.refusal
        if warning:
            raise self._cut_short(warning)
        return cast("list[list[bytes]]", rows)

    def _cut_short(self, warning: bytes) -> StoreUnavailableError:
        said = warning.decode(errors="replace")
        return StoreUnavailableError(f"{self._name}: the server cut a query short, and a part is no answer: {said}")
