"""What open stores do when their process forks, as under gunicorn's ``--preload`` and `multiprocessing`.

A connection that two processes share mixes up their answers, so each process opens its own. Windows does not fork.
"""

import os
from threading import Lock
from typing import Final
from weakref import WeakSet


class ForkAware:
    """Something open that a fork concerns; `watch` it, and override what it needs."""

    def before_fork(self) -> None:
        """Prepare, in the thread that is about to fork."""

    def after_fork_in_parent(self) -> None:
        """Go on, in the process that forked."""

    def after_fork_in_child(self) -> None:
        """Replace locks, connections and threads, in the new process. The old ones are still the parent's: do not close them."""


_watched: Final[WeakSet[ForkAware]] = WeakSet()
_prepared: Final[list[ForkAware]] = []
_one_fork: Final = [Lock()]  # at a time: else what one thread has prepared is undone before the other forks


def watch(one: ForkAware) -> None:
    """Call the methods of an object around each fork, for as long as the object lives."""
    _watched.add(one)


class FreshLock(ForkAware):
    """A lock that is free in a new process, whatever thread had it at the fork."""

    def __init__(self) -> None:
        self._lock = Lock()
        watch(self)

    def after_fork_in_child(self) -> None:
        self._lock = Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock; return whether it was to be had."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _before() -> None:
    _one_fork[0].acquire()
    _prepared[:] = _watched
    for one in _prepared:
        one.before_fork()


def _in_parent() -> None:
    for one in _prepared:
        one.after_fork_in_parent()
    _prepared.clear()
    _one_fork[0].release()


def _in_child() -> None:
    _one_fork[0] = Lock()
    for one in _prepared:
        one.after_fork_in_child()
    _prepared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
