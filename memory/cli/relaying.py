"""`memory relay`: deliver what waits for replicas, once or continuously."""

import time
from collections.abc import Iterable

from memory.cli.reporting import complain, counted, visible
from memory.errors import InvalidValueError
from memory.transfer.mirroring import MirroredStore, Relayed


def named_replicas(arguments: Iterable[str]) -> dict[str, str]:
    """Return the URLs of arguments such as ``search=redis://host``, by name."""
    urls: dict[str, str] = {}
    for argument in arguments:
        name, equals, url = argument.partition("=")
        if not (equals and name) or "://" in name:
            raise InvalidValueError("write a replica as NAME=URL, such as search=redis://host, as in `memory.mirror`")
        if name in urls:
            raise InvalidValueError(f"the replica {name!r} is named twice")
        urls[name] = url
    return urls


def relay_once(store: MirroredStore) -> bool:
    """Deliver everything, report it, and return whether nothing is left."""
    relayed = store.relay()
    for done in relayed:
        _report(done)
        if done.busy:
            complain(f"{done.replica}: another relay is at work on it")
        if done.failure is not None:
            complain(f"error: {done.replica}: {done.failure}")
    left = {replica: lag.change_sets for replica, lag in store.lag().items() if lag.change_sets}
    for replica, change_sets in left.items():
        is_unknown = replica not in store.replicas
        advice = ", which is not named here: name it, or see --forget" if is_unknown else ""
        complain(f"{replica}: {counted(change_sets, 'change set')} left{advice}")
    return not left


def relay_on(store: MirroredStore, interval: float) -> None:
    """Deliver continuously until the process ends, with pauses when nothing waits or a replica fails."""
    reported = ""
    while True:
        relayed = store.relay()
        for done in relayed:
            if done.delivered:
                _report(done)
        failures = "; ".join(f"{done.replica}: {done.failure}" for done in relayed if done.failure is not None)
        if failures and failures != reported:  # the same failures are reported once
            complain(f"error: {failures}")
        reported = failures
        if failures or not any(done.delivered for done in relayed):
            time.sleep(interval)


def _report(done: Relayed) -> None:
    repaired = f", repaired {counted(done.repaired, 'conversation')}" if done.repaired else ""
    print(visible(f"{done.replica}: delivered {counted(done.delivered, 'change set')}{repaired}"), flush=True)
