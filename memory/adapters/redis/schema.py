"""The search index: it has a version, is used through an alias, and is replaced without downtime.

`migrate` creates the new index beside the old one, waits until the server has indexed all conversations, points the alias to the
new index, and drops all others. Every step is idempotent, so concurrent migrations are safe, and a migration completes one that
was interrupted. `warnings` checks the server's settings, whose consequences docs/redis.md describes.
"""

import time
from typing import Any, Final

from memory.adapters.redis.errors import NO_CLUSTER, translate
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import index_arguments
from memory.adapters.redis.wire import Wire
from memory.errors import ConfigurationError, PersistenceError, SchemaError, StoreUnavailableError
from memory.port.repository import Progress, SchemaStatus

HEAD: Final = "0002"
"""The version of the layout that this code reads and writes: keys, fields, tokens and index."""

_UNREADABLE: Final = "0001"
_OTHER_FIELDS: Final = "(an index with other fields)"  # sorts before every version, so users are told to migrate
_LOSSES: Final = {
    ("appendonly", "no"): "a restart loses all writes acknowledged since the last snapshot",
    ("appendfsync", "no"): "a power failure loses writes that are not yet on disk, often 30 seconds of them",
    ("appendfsync", "everysec"): "a power failure (but not a server crash) loses up to two seconds of writes",
    ("min-replicas-to-write", "0"): "a failover loses writes that a primary acknowledged while it had no replicas",
}
_PAUSE: Final = 0.02  # seconds between two checks of the progress of indexing


class Schema:
    """The index of one store."""

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self._wire, self._keys = wire, keys

    @property
    def _name(self) -> str:
        return f"{self._keys.index}:{HEAD}"

    def status(self) -> SchemaStatus:
        """Return the version of the index that the alias points to."""
        index, cluster, search = self._wire.ask_all(
            ("FT.INFO", self._keys.index), ("INFO", "cluster"), ("COMMAND", "INFO", "FT.CREATE")
        )
        if b"cluster_enabled:1" in self._wire.checked(cluster):
            raise ConfigurationError(f"{self._wire.where()}: {NO_CLUSTER}")
        if not isinstance(index, Exception):
            version = index[b"index_name"].decode().rpartition(":")[2]
            return SchemaStatus(_OTHER_FIELDS if version == HEAD and not self._is_ours(index) else version, HEAD)
        if (ours := translate(index, self._wire.where())) is not None:
            raise ours from index
        if self._wire.checked(search) == [None]:
            raise ConfigurationError(
                f"{self._wire.where()}: the server has no search module: use Redis 8, which includes it, "
                "or load RediSearch 2.6 or newer into Redis 7 (redis-stack-server has both)"
            )
        return SchemaStatus(None, HEAD)

    def explain(self, error: Exception) -> PersistenceError:
        """Return our error for an error reply to a search. RediSearch's errors have no codes."""
        if (ours := translate(error, self._wire.where())) is not None:
            return ours
        status = self.status()
        if not status.is_current:
            return SchemaError(status.advice())
        return StoreUnavailableError(f"{self._wire.where()}: the server did not finish a query ({error})")

    def steps(self) -> list[str]:
        """Describe the steps that `migrate` would perform."""
        status = self.status()
        steps = [f"drop the index {name}" for name in sorted(self._indexes() - {self._name})]
        if not status.is_current:
            steps[:0] = [
                f"create the index {self._name}, and wait until it contains all conversations",
                f"point the alias {self._keys.index} at it",
            ]
        return steps

    def migrate(self, progress: Progress) -> SchemaStatus:
        """Migrate the index to the current version, unless the store has a newer or an unreadable one."""
        status, indexes = self.status(), self._indexes()
        if status.current is not None and status.current > HEAD:
            raise SchemaError(status.advice())
        if f"{self._keys.index}:{_UNREADABLE}" in indexes:
            raise SchemaError(
                f"{self._wire.where()} has the layout {_UNREADABLE} of an older release, which this one cannot read: export the "
                "store with the older release (`memory export`), and import it with this one under another prefix"
            )
        if not status.is_current:
            if self._name in indexes and not self._is_ours(self._wire.ask("FT.INFO", self._name)):
                self._change("FT.DROPINDEX", self._name)
            self._change("FT.CREATE", self._name, *index_arguments(self._keys.prefix))
            while int((info := self._wire.ask("FT.INFO", self._name))[b"indexing"]):
                progress(f"indexing conversations in {self._name}", min(float(info[b"percent_indexed"]), 0.999))
                time.sleep(_PAUSE)
            progress(f"pointing the alias to the index {self._name}", None)
            self._wire.ask("FT.ALIASUPDATE", self._keys.index, self._name)
        for name in self._indexes() - {self._name}:
            self._change("FT.DROPINDEX", name)
        return self.status()

    def warnings(self) -> list[str]:
        """Return one sentence for each setting or state of the server that could lose or hide acknowledged writes."""
        configuration, info, index, indexes = self._wire.ask_all(
            ("CONFIG", "GET", "maxmemory-policy", *{name for name, _ in _LOSSES}),
            ("INFO",),
            ("FT.INFO", self._keys.index),
            ("FT._LIST",),
        )
        info = b"" if isinstance(info, Exception) else info
        is_replicated = b"role:master" in info and b"connected_slaves:0" not in info
        found = []
        if isinstance(configuration, Exception):
            found.append(
                f"this user may not read the server's settings ({configuration}): ask its administrator about AOF and eviction"
            )
            configuration = {}
        settings = {name.decode(): value.decode() for name, value in configuration.items()}
        for (name, value), loss in _LOSSES.items():
            if settings.get(name) == value and (is_replicated or not name.startswith("min-replicas")):
                found.append(f"{name} is {value}: {loss}")
        if (policy := settings.get("maxmemory-policy", "noeviction")) != "noeviction":
            found.append(f"maxmemory-policy is {policy}: a full server deletes conversations; set noeviction")
        if isinstance(index, dict) and (failures := int(index.get(b"hash_indexing_failures", 0))):
            found.append(
                f"{failures} hashes could not be indexed, so searches miss them: they were edited (FT.INFO reports which)"
            )
        if b"aof_last_write_status:err" in info:
            found.append("the server's last write to its append-only file failed: its disk is full or failing")
        leftovers = set() if isinstance(indexes, Exception) else self._ours(indexes) - {self._name}
        return found + [
            f"the index {name} remains from an interrupted migration and slows down every write: run `memory migrate`"
            for name in sorted(leftovers)
        ]

    def _is_ours(self, info: Any) -> bool:
        """Whether an index covers the keys and has the fields that this code needs."""
        definition = info[b"index_definition"]
        words = ["ON", definition[b"key_type"], "PREFIX", f"{len(definition[b'prefixes'])}", *definition[b"prefixes"]]
        words.append("SCHEMA")
        for field in info[b"attributes"]:
            separator = ["SEPARATOR", field[b"SEPARATOR"]] if b"SEPARATOR" in field else []
            words += [field[b"identifier"], field[b"type"], *separator, *field[b"flags"]]
        found = [word.decode() if isinstance(word, bytes) else word for word in words]
        return found == index_arguments(self._keys.prefix)

    def _indexes(self) -> set[str]:
        return self._ours(self._wire.ask("FT._LIST"))

    def _ours(self, names: list[bytes]) -> set[str]:
        texts = {name.decode(errors="replace") for name in names}
        return {name for name in texts if name.startswith(f"{self._keys.index}:")}

    def _change(self, command: str, name: str, *arguments: str) -> None:
        """Create or drop an index; ignore the error if a concurrent migration has already done so."""
        (answer,) = self._wire.ask_all((command, name, *arguments))
        if isinstance(answer, Exception) and (name in self._indexes()) != (command == "FT.CREATE"):
            self._wire.checked(answer)
