"""The runs of a conversation: one round trip, whichever they are.

``SORT`` is the one command that reads many hashes, and it takes a sorted set as that is: so it has the runs by their positions.
It counts from an end, not from a position; for a window that begins or ends somewhere a script counts first, which costs the
server three times as much.
"""

from collections.abc import Sequence
from typing import Any, Final

from memory.adapters.redis import records
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import RUN_FIELDS
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.changes import ALL_RUNS, Seen
from memory.repository import RunsRead, Window

_RUNS: Final = Script("shared", "runs")
_WIDTH: Final = 1 + len(RUN_FIELDS)


def read_runs(wire: Wire, keys: Keys, namespace: str, conversation_id: str, window: Window, *, now: int) -> RunsRead:
    """Return the runs of a window.

    Raises:
        CorruptRecordError: a key holds something that cannot be read.
    """
    key, positions = keys.conversation(namespace, conversation_id), keys.positions(namespace, conversation_id)
    runs = keys.runs(namespace, conversation_id)
    gets = [argument for field in RUN_FIELDS for argument in ("GET", f"{runs}*->{field}")]
    sort: list[Argument] = ["BY", "nosort", "GET", "#", *gets]
    limit = -1 if window.limit is None else min(window.limit, ALL_RUNS)
    if window.after <= 0 and window.before is None:
        direction = "DESC" if window.from_end else "ASC"
        *queued, answers = wire.ask_all(
            ("MULTI",),
            ("HMGET", key, "incarnation", "version", "expires_at"),
            ("SORT", positions, *sort, "LIMIT", 0, limit, direction),
            ("EXEC",),
        )
        for answer in queued:
            wire.checked(answer)
        conversation, read = (
            wire.checked(answer, name) for answer, name in zip(wire.checked(answers), (key, positions), strict=True)
        )
    else:
        before = ALL_RUNS if window.before is None else min(window.before, ALL_RUNS)
        arguments = (min(window.after, ALL_RUNS), before, limit, "1" if window.from_end else "", *sort)
        conversation, read = wire.read(_RUNS, (key, positions), arguments)
    seen = _seen(key, conversation, now, has_runs=bool(read))
    if seen is None:
        return RunsRead(None, ())
    found = [records.run(runs, conversation_id, read[at : at + _WIDTH]) for at in range(0, len(read), _WIDTH)]
    return RunsRead(seen, tuple(reversed(found) if window.from_end else found))


def _seen(key: str, fields: Sequence[Any], now: int, *, has_runs: bool) -> Seen | None:
    """Return which conversation and version there is, None if there is none or it is expired."""
    incarnation, version, expires_at = fields
    if incarnation is None and version is None and expires_at is None and not has_runs:
        return None
    try:
        if expires_at is not None and int(expires_at) <= now:
            return None
        return Seen(incarnation.decode(), int(version))
    except (ValueError, TypeError, AttributeError) as error:
        raise records.corrupt(key, error) from error
