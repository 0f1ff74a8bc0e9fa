"""Commands to the index: each is answered completely, or raises an error."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.wire import Argument, Wire
from memory.errors import PersistenceError, StoreUnavailableError

Row: TypeAlias = tuple[str, list[bytes | None]]
Steps: TypeAlias = tuple[Argument, ...]
_SHARE: Final = 0.8
_AT_ONCE: Final = 300  # rows of one answer: some 3 ms of the server's time
_COUNT: Final[Steps] = (
    "GROUPBY",
    0,
    "REDUCE",
    "COUNT",
    0,
    "AS",
    "n",
)  # LIMIT 0 0 does not say when its total was cut short
_LOAD: Final[Steps] = ("LOAD", len(RECORD_FIELDS) + 1, "@__key", *(f"@{name}" for name in RECORD_FIELDS))


class Index:
    """The index of one store.

    Args:
        wire: the connections.
        keys: the names of keys.
        explain: returns our error for a search that the server refused.
    """

    def __init__(self, wire: Wire, keys: Keys, explain: Callable[[Exception], PersistenceError]) -> None:
        self._wire = wire
        self.name: Final = keys.index
        self._explain: Final = explain

    @property
    def milliseconds(self) -> int:
        """The time that the server may take for a query: most of what is left, so that it can still say that it gave up."""
        return max(1, round(1000 * _SHARE * self._wire.seconds_left))

    def count(self, query: str) -> int:
        """Return how many conversations a query finds."""
        return self._number(self._wire.ask_all(self._command(query, *_COUNT))[0])

    def some(self, query: str, limit: int) -> list[Row]:
        """Return some of the conversations that a query finds, as `hashes`."""
        (answer,) = self._wire.ask_all(self._command(query, "LIMIT", 0, limit, *_LOAD))
        return [_row(one) for one in _results(self._checked(answer))]

    def sample(self, query: str, size: int, limit: int) -> tuple[list[Row], int]:
        """Return some of the conversations that a query finds, as `hashes`, and how many there are, at most ``limit``."""
        some, number = self._wire.ask_all(
            self._command(query, "LIMIT", 0, size, *_LOAD), self._command(query, "LIMIT", 0, limit, *_COUNT)
        )
        return [_row(one) for one in _results(self._checked(some))], self._number(number)

    def hashes(self, query: str) -> Iterator[Row]:
        """Yield the key and the record's fields of each conversation that a query finds, in no order, each once."""
        # MAXIDLE: the server forgets the cursor of a query that nobody reads to its end.
        cursor = ("WITHCURSOR", "COUNT", _AT_ONCE, "MAXIDLE", self.milliseconds)
        answer, at = self._checked(self._wire.ask_all(self._command(query, *_LOAD, *cursor))[0])
        seen: set[str] = set()
        while True:
            for key, fields in map(_row, _results(answer)):
                if key not in seen:  # one that is written meanwhile comes again
                    seen.add(key)
                    yield key, fields
            if not at:
                return
            answer, at = self._checked(self._wire.ask_all(("FT.CURSOR", "READ", self.name, at))[0])

    def _command(self, query: str, *steps: Argument) -> Steps:
        return ("FT.AGGREGATE", self.name, query, *steps, "TIMEOUT", self.milliseconds, "DIALECT", 2)

    def _number(self, answer: Any) -> int:
        rows = _results(self._checked(answer))
        if rows and b"n" not in rows[0]:  # with ON_TIMEOUT fail, a time-out gives an empty row and no warning
            raise self.cut_short(b"")
        return int(rows[0][b"n"]) if rows else 0

    def _checked(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise self._explain(answer) from answer
        result = answer[0] if isinstance(answer, list) else answer
        if result[b"warning"]:
            raise self.cut_short(b"; ".join(result[b"warning"]))
        return answer

    def cut_short(self, warning: bytes) -> StoreUnavailableError:
        """Return the error for a query that the server did not finish."""
        said = warning.decode(errors="replace")
        return StoreUnavailableError(f"{self.name}: the server cut a query short, so its answer is incomplete: {said}")


def _results(answer: Any) -> list[Mapping[bytes, bytes]]:
    return [result[b"extra_attributes"] for result in answer[b"results"]]


def _row(result: Mapping[bytes, bytes]) -> Row:
    return result.get(b"__key", b"").decode(errors="replace"), [result.get(name.encode()) for name in RECORD_FIELDS]
