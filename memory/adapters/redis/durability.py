"""Warnings about a server's settings that could lose acknowledged writes; docs/redis.md has the promises that go with them."""

from typing import Final

from memory.adapters.redis.keys import Keys
from memory.adapters.redis.wire import Wire

_LOSSES: Final = {
    ("appendonly", "no"): "a restart loses all that was acknowledged since the last snapshot",
    ("appendfsync", "no"): "a power cut loses what the operating system had not yet written, often 30 seconds",
    ("appendfsync", "everysec"): "a power cut, though no crash of the server, loses up to a second or two",
}


def warnings(wire: Wire, keys: Keys) -> list[str]:
    """Return a sentence for each setting or state that could lose or hide acknowledged writes."""
    names = {*(name for name, _ in _LOSSES), "maxmemory-policy", "min-replicas-to-write"}
    configuration, info, index = wire.ask_all(("CONFIG", "GET", *names), ("INFO",), ("FT.INFO", keys.index))
    info = b"" if isinstance(info, Exception) else info
    found = []
    if isinstance(configuration, Exception):
        found.append(
            f"this user may not read the server's settings ({configuration}): ask who runs it about AOF and eviction"
        )
    else:
        settings = {name.decode(): value.decode() for name, value in configuration.items()}
        found += [
            f"{name} is {value}: {loss}" for (name, value), loss in _LOSSES.items() if settings.get(name) == value
        ]
        if (policy := settings.get("maxmemory-policy", "noeviction")) != "noeviction":
            found.append(f"maxmemory-policy is {policy}: a full server deletes conversations; set noeviction")
        if (
            settings.get("min-replicas-to-write") == "0"
            and b"connected_slaves:0" not in info
            and b"role:master" in info
        ):
            found.append(
                "min-replicas-to-write is 0: a failover, as by Sentinel, loses what a primary without replicas has acknowledged"
            )
    if isinstance(index, dict) and (failures := int(index.get(b"hash_indexing_failures", 0))):
        found.append(
            f"{failures} hashes could not be indexed, so no search finds them: somebody edited them (FT.INFO tells which)"
        )
    if b"aof_last_write_status:err" in info:
        found.append("the server could not write its append-only file the last time: its disk is full or failing")
    return found
