"""What open stores do when their process forks, as under gunicorn's ``--preload`` and `multiprocessing`.

A connection that two processes share mixes up their answers, so each process opens its own. Windows does not fork.
"""

import os
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


def watch(one: ForkAware) -> None:
    """Call the methods of an object around each fork, for as long as the object lives."""
    _watched.add(one)


def _before() -> None:
    for one in list(_watched):
        one.before_fork()


def _in_parent() -> None:
    for one in list(_watched):
        one.after_fork_in_parent()


def _in_child() -> None:
    for one in list(_watched):
        one.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
