"""Warnings about a server's settings that could lose acknowledged writes; docs/redis.md has the promises that go with them."""

from memory.adapters.redis.keys import Keys
from memory.adapters.redis.wire import Wire

_SETTINGS = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")


def warnings(wire: Wire, keys: Keys) -> list[str]:
    """Return a sentence for each setting or state that could lose or hide acknowledged writes."""
    configuration, persistence, index = wire.ask_all(
        ("CONFIG", "GET", *_SETTINGS), ("INFO", "persistence"), ("FT.INFO", keys.index)
    )
    found = []
    if isinstance(index, dict) and (failures := int(index.get(b"hash_indexing_failures", 0))):
        found.append(
            f"{failures} hashes could not be indexed, so no search finds them: somebody edited them (FT.INFO tells which)"
        )
    if isinstance(configuration, Exception):
        found.append(
            f"this user may not read the server's settings ({configuration}): ask who runs it about AOF and eviction"
        )
    else:
        found += _of_settings({name.decode(): value.decode() for name, value in configuration.items()})
    if not isinstance(persistence, Exception) and b"aof_last_write_status:err" in persistence:
        found.append("the server could not write its append-only file the last time: its disk is full or failing")
    return found


def _of_settings(settings: dict[str, str]) -> list[str]:
    found = []
    if settings.get("appendonly") != "yes":
        found.append("appendonly is off: a restart loses all that was acknowledged since the last snapshot")
    elif settings.get("appendfsync") == "no":
        found.append(
            "appendfsync is no: a power cut loses what the operating system had not yet written, often 30 seconds"
        )
    elif settings.get("appendfsync") == "everysec":
        found.append("appendfsync is everysec: a power cut, though no crash of the server, loses up to a second or two")
    if settings.get("maxmemory-policy", "noeviction") != "noeviction":
        found.append(
            f"maxmemory-policy is {settings['maxmemory-policy']}: a full server deletes conversations; set noeviction"
        )
    return found
