"""Keep open stores usable when the process forks, as with gunicorn's ``--preload`` and `multiprocessing`.

Two processes must not share a connection, because their responses would be mixed up. Windows does not fork.
"""

import os
from threading import Lock
from typing import Final
from weakref import WeakSet


class ForkAware:
    """An object with methods that are called around a fork, once it was passed to `watch`."""

    def before_fork(self) -> None:
        """Prepare for the fork. Called in the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Resume in the process that forked."""

    def after_fork_in_child(self) -> None:
        """Replace locks, connections and threads in the new process. Do not close the old ones: the parent uses them."""


_watched: Final[WeakSet[ForkAware]] = WeakSet()
_prepared: Final[list[ForkAware]] = []
_fork_lock: Final = [Lock()]  # one fork at a time, so that one thread does not undo the preparation of another


def watch(target: ForkAware) -> None:
    """Call the methods of an object around each fork, as long as the object exists."""
    _watched.add(target)


class FreshLock(ForkAware):
    """A lock that is free in a forked process, even if another thread held it at the fork."""

    def __init__(self) -> None:
        self._lock = Lock()
        watch(self)

    def after_fork_in_child(self) -> None:
        self._lock = Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _before() -> None:
    _fork_lock[0].acquire()
    _prepared[:] = _watched
    for target in _prepared:
        target.before_fork()


def _in_parent() -> None:
    for target in _prepared:
        target.after_fork_in_parent()
    _prepared.clear()
    _fork_lock[0].release()


def _in_child() -> None:
    _fork_lock[0] = Lock()
    for target in _prepared:
        target.after_fork_in_child()
    _prepared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
