"""The index: versioned, behind an alias, and replaced without a gap.

`migrate` makes the new index beside the old one, waits until the server has read every conversation into it, encodes anew those
that an older version of the code wrote, points the alias at it, and drops the old. Each step can be done twice, so two who
migrate at once do no harm, and one who was interrupted begins again.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from memory.adapters.redis.errors import NO_CLUSTER, translate
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import RECORD_FIELDS
from memory.adapters.redis.records import conversation_record
from memory.adapters.redis.searching import encoded
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.entities import Conversation
from memory.errors import ConfigurationError, PersistenceError, SchemaError, StoreUnavailableError
from memory.port.index import entries
from memory.port.repository import Progress, SchemaStatus

HEAD: Final = "0001"
"""The version of the index that this code reads and writes: its fields and `tokens.ENCODING`."""

OLDER_ENCODINGS: Final[tuple[str, ...]] = ()
"""Encodings that released versions of this code wrote."""

_REENCODE: Final = Script("shared", "reencode")
_AT_ONCE: Final = 500
_PAUSE: Final = 0.02  # seconds between two looks at how far an index is


class Schema:
    """The index of one store."""

    def __init__(self, wire: Wire, keys: Keys, arguments: tuple[str, ...], where: Callable[[], object]) -> None:
        self._wire, self._keys, self._arguments, self._where = wire, keys, arguments, where

    def status(self) -> SchemaStatus:
        """Return the version of the index that the alias leads to.

        Raises:
            ConfigurationError: the server cannot have one: it has no search module, or is part of a cluster.
        """
        index, cluster = self._wire.ask_all(("FT.INFO", self._keys.index), ("INFO", "cluster"))
        if b"cluster_enabled:1" in self._wire.checked(cluster):
            raise ConfigurationError(f"{self._where()}: {NO_CLUSTER}")
        if isinstance(index, Exception):
            if (ours := translate(index, self._where())) is not None:
                raise ours from index
            self._check_search()
            return SchemaStatus(None, HEAD)
        return SchemaStatus(index[b"index_name"].decode().rpartition(":")[2], HEAD)

    def explain(self, error: Exception) -> PersistenceError:
        """Return the error of ours that a search which the server refused means. Its own errors of searches have no codes."""
        if (ours := translate(error, self._where())) is not None:
            return ours
        status = self.status()
        if not status.is_current:
            return SchemaError(status.advice())
        return StoreUnavailableError(f"{self._where()}: the server did not finish a query ({error})")

    def steps(self) -> list[str]:
        """Return in words what `migrate` would do."""
        status = self.status()
        if status.is_current:
            return []
        old = sorted(name for name in self._indexes() if name < self._name)
        return [
            f"make the index {self._name}, and wait until it has all conversations",
            *(f"encode anew the conversations of encoding {encoding}" for encoding in OLDER_ENCODINGS),
            f"point the alias {self._keys.index} at it",
            *(f"drop the index {name}" for name in old),
        ]

    def migrate(self, progress: Progress) -> SchemaStatus:
        """Bring the index to the version of this code; see the module.

        Raises:
            SchemaError: there is a newer one.
        """
        status = self.status()
        if status.current is not None and status.current > HEAD:
            raise SchemaError(status.advice())
        if not status.is_current:
            self._build(progress)
        for encoding in OLDER_ENCODINGS:  # also of programs of the old version that wrote after the last migration
            while self._reencode_some(encoding):
                progress("encoding conversations anew", None)
        if not status.is_current:
            progress(f"taking the index {self._name} into use", None)
            self._wire.ask("FT.ALIASUPDATE", self._keys.index, self._name)
            for name in self._indexes():
                if name < self._name:
                    self._drop(name)
        return self.status()

    def _drop(self, name: str) -> None:
        self._tolerate(lambda: name not in self._indexes(), "FT.DROPINDEX", name)

    @property
    def _name(self) -> str:
        return f"{self._keys.index}:{HEAD}"

    def _build(self, progress: Progress) -> None:
        self._tolerate(lambda: self._name in self._indexes(), "FT.CREATE", self._name, *self._arguments)
        while (done := self._part_indexed()) < 1:
            progress(f"reading conversations into the index {self._name}", done)
            time.sleep(_PAUSE)

    def _part_indexed(self) -> float:
        info = self._wire.ask("FT.INFO", self._name)
        return 1.0 if int(info[b"indexing"]) == 0 else min(float(info[b"percent_indexed"]), 0.999)

    def _reencode_some(self, encoding: str) -> bool:
        """Encode some conversations anew; tell whether there were any. One that changes meanwhile has another turn."""
        query: list[Argument] = [
            "FT.AGGREGATE",
            self._name,
            f"@encoding:{{{encoding}}}",
            "LIMIT",
            0,
            _AT_ONCE,
            "DIALECT",
            2,
        ]
        names = ["@__key", *(f"@{name}" for name in RECORD_FIELDS)]
        found = self._wire.ask(*query, "LOAD", len(names), *names)
        rows: list[Mapping[bytes, bytes]] = [result[b"extra_attributes"] for result in found[b"results"]]
        for row in rows:
            key = row[b"__key"].decode()
            record = conversation_record(key, [row.get(name.encode()) for name in RECORD_FIELDS])
            tokens = Tokens(self._keys.prefix, self._keys.namespace_of(key))
            fields = encoded(tokens, record, tokens.of(entries(Conversation.from_record(record).metadata)))
            del fields["by_updated_at"]  # the script takes what is stored then
            pairs = [text for pair in fields.items() for text in pair]
            self._wire.read(_REENCODE, [key], [record.incarnation, record.version, *pairs])
        return bool(rows)

    def _check_search(self) -> None:
        (command,) = self._wire.ask("COMMAND", "INFO", "FT.CREATE")
        if command is None:
            raise ConfigurationError(
                f"{self._where()}: the server has no search: take Redis 8, whose search is built in, "
                "or load RediSearch 2.6 or newer into Redis 7 (redis-stack-server has both)"
            )

    def _indexes(self) -> set[str]:
        names = {name.decode(errors="replace") for name in self._wire.ask("FT._LIST")}
        return {name for name in names if name.startswith(f"{self._keys.index}:")}

    def _tolerate(self, done: Callable[[], bool], *command: Any) -> None:
        """Do something to the index that somebody else may do at the same moment."""
        (answer,) = self._wire.ask_all(command)
        if isinstance(answer, Exception) and not done():
            self._wire.checked(answer)
