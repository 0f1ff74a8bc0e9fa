"""Commands to the index: each is answered completely, or raises an error."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.wire import Argument, Wire
from memory.errors import PersistenceError, StoreUnavailableError

Row: TypeAlias = tuple[str, list[bytes | None]]
"""The key of a conversation's hash, and the fields of its record."""
Steps: TypeAlias = tuple[Argument, ...]
_SHARE: Final = 0.8
_AT_ONCE: Final = 300  # rows of one answer: some 3 ms of the server's time
_LOAD: Final[Steps] = ("LOAD", len(RECORD_FIELDS) + 1, "@__key", *(f"@{name}" for name in RECORD_FIELDS))
_COUNT: Final[Steps] = (
    "GROUPBY",
    0,
    "REDUCE",
    "COUNT",
    0,
    "AS",
    "n",
)  # LIMIT 0 0 does not say when its total was cut short
_NAMES: Final = [name.encode() for name in RECORD_FIELDS]


class Index:
    """The index of one store.

    Args:
        wire: the connections.
        keys: the names of keys.
        explain: returns our error for a search that the server refused.
    """

    def __init__(self, wire: Wire, keys: Keys, explain: Callable[[Exception], PersistenceError]) -> None:
        self._wire, self._name, self._explain = wire, keys.index, explain

    @property
    def milliseconds(self) -> int:
        """The time that the server may take for a query: most of what is left, so that it can still say that it gave up."""
        return max(1, round(1000 * _SHARE * self._wire.seconds_left))

    def count(self, query: str, limit: int | None = None) -> int:
        """Return how many conversations a query finds, at most ``limit``."""
        rows, _ = self._aggregate(query, *(() if limit is None else ("LIMIT", 0, limit)), *_COUNT)
        if rows and b"n" not in rows[0]:  # with ON_TIMEOUT fail, a time-out gives an empty row and no warning
            raise self._cut_short(b"")
        return int(rows[0][b"n"]) if rows else 0

    def some(self, query: str, limit: int) -> list[Row]:
        """Return at most so many of the conversations that a query finds, in no order."""
        rows, _ = self._aggregate(query, "LIMIT", 0, limit, *_LOAD)
        return list(map(_row, rows))

    def all(self, query: str) -> Iterator[Row]:
        """Yield each conversation that a query finds once, in no order."""
        # MAXIDLE: the server forgets the cursor of a query that nobody reads to its end.
        rows, cursor = self._aggregate(query, *_LOAD, "WITHCURSOR", "COUNT", _AT_ONCE, "MAXIDLE", self.milliseconds)
        seen: set[str] = set()
        while True:
            for key, fields in map(_row, rows):
                if key not in seen:  # one that is written meanwhile comes again
                    seen.add(key)
                    yield key, fields
            if not cursor:
                return
            rows, cursor = self._ask("FT.CURSOR", "READ", self._name, cursor)

    def _aggregate(self, query: str, *steps: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        return self._ask("FT.AGGREGATE", self._name, query, *steps, "TIMEOUT", self.milliseconds, "DIALECT", 2)

    def _ask(self, *command: Argument) -> tuple[list[Mapping[bytes, bytes]], int]:
        """Return the rows of an answer, and the cursor to go on from: 0 if there is none."""
        (answer,) = self._wire.ask_all(command)
        if isinstance(answer, Exception):
            raise self._explain(answer) from answer
        result: Any
        result, cursor = answer if isinstance(answer, list) else (answer, 0)
        if result[b"warning"]:
            raise self._cut_short(b"; ".join(result[b"warning"]))
        return [row[b"extra_attributes"] for row in result[b"results"]], cursor

    def _cut_short(self, warning: bytes) -> StoreUnavailableError:
        said = warning.decode(errors="replace")
        return StoreUnavailableError(f"{self._name}: the server cut a query short, so its answer is incomplete: {said}")


def _row(found: Mapping[bytes, bytes]) -> Row:
    return found.get(b"__key", b"").decode(errors="replace"), list(map(found.get, _NAMES))
