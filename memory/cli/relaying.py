"""Delivering what waits for replicas, once or for good."""

import time
from typing import Final

from memory.cli.reporting import complain, visible
from memory.port.urls import redact
from memory.transfer.mirroring import MirroredStore, Relayed

_LONGEST: Final = 60.0  # seconds between two tries of what fails


def relay_once(store: MirroredStore) -> bool:
    """Deliver all there is, tell of it, and return whether nothing is left."""
    relayed = store.relay()
    for done in relayed:
        _tell(done)
        if done.busy:
            complain(f"{done.replica}: another relay is at work on it")
        if done.failure is not None:
            complain(f"error: {done.failure}")
    named = {done.replica for done in relayed}
    left = {replica: waiting.change_sets for replica, waiting in store.lag().items() if waiting.change_sets}
    for replica, change_sets in left.items():
        unnamed = "" if replica in named else ", which is none of those that were named: --forget throws them away"
        complain(f"{change_sets:,} change sets wait for {replica}{unnamed}")
    return not left


def relay_on(store: MirroredStore, interval: float) -> None:
    """Deliver what comes, until the process is ended: that may be at any moment.

    Args:
        store: whose replicas.
        interval: seconds between two looks when there was nothing, and at first when something failed.
    """
    delay, told = interval, ""
    while True:
        relayed = store.relay()
        for done in relayed:
            if done.delivered:
                _tell(done)
        failures = "; ".join(str(done.failure) for done in relayed if done.failure is not None)
        if failures and failures != told:  # once, not every time
            complain(f"error: {failures}")
        delay = min(2 * delay, _LONGEST) if failures else interval
        told = failures
        if failures or not any(done.delivered for done in relayed):
            time.sleep(delay)


def _tell(done: Relayed) -> None:
    repaired = f", copied {done.repaired:,} conversations anew" if done.repaired else ""
    print(visible(redact(f"{done.replica}: delivered {done.delivered:,} change sets{repaired}")), flush=True)
