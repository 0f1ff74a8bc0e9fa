"""A mirror: one primary store, and replicas that receive everything that is written to it, in order, even after an outage.

Each commit to the primary adds, in the same transaction, an outbox entry for each replica. A relay delivers the entries
(`MirroredStore.relay`). It may be killed at any moment: an entry that is delivered twice has no effect the second time. If a
replica is not in the state that an entry was made for, the conversation is copied from the primary in its current state, and
later entries for it are recognized as delivered.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, overload

from memory.core.connect import connect
from memory.core.store import Store
from memory.core.store_operations import MAX_METADATA_VALUES
from memory.domain.entities import M
from memory.domain.values import check_id
from memory.errors import (
    AlreadyExistsError,
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    UnsupportedError,
)
from memory.port.changes import Change, ChangeSet, ExpectedVersion
from memory.port.outbox import OutboxEntry, ReplicaLag
from memory.port.repository import Progress, SchemaStatus, no_progress
from memory.port.urls import is_temporary, normalized, sqlite_file
from memory.transfer import copy_conversation
from memory.transfer.reading import get_record

_log = logging.getLogger("memory")

_AT_ONCE: Final = 100  # entries between two deletions from the outbox, each of which syncs the primary's disk
_ROUND: Final = 5.0  # seconds between two deletions: on PostgreSQL migrations and vacuum wait meanwhile
_DOES_NOT_FIT = (
    AlreadyExistsError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    UnsupportedError,
)


@dataclass(slots=True)
class Relayed:
    """What `MirroredStore.relay` did for one replica.

    Attributes:
        delivered: how many change sets were delivered.
        repaired: how many conversations were copied from the primary, because the replica was in another state than expected.
        busy: another relay is at work on this replica.
        failure: the error that ended the delivery; everything that was not delivered waits.
    """

    replica: str
    delivered: int = 0
    repaired: int = 0
    busy: bool = False
    failure: PersistenceError | None = None


class MirroredStore(Store[M]):
    """A store whose commits go to the primary, and from there to the replicas; see `mirror`.

    Args:
        primary: a SQL store.
        replicas: the replicas by name.
        opened: stores to close in `close`.
    """

    def __init__(
        self, primary: Store[M], replicas: Mapping[str, Store[Any]], opened: Iterable[Store[Any]] = ()
    ) -> None:
        for name in replicas:
            check_id(name, "the replica's name")
        super().__init__(
            primary.repository.with_outbox(list(replicas)),
            primary.namespace_name,
            metadata=primary.serializer.codec,
            default=primary.serializer.default,
            max_metadata_values=primary.max_metadata_values,
        )
        self._replicas = dict(replicas)
        self._opened = opened

    @property
    def replicas(self) -> Mapping[str, Store[Any]]:
        """The replicas by name, each in the namespace it was opened with."""
        return MappingProxyType(self._replicas)

    def relay(self, progress: Callable[[Relayed], object] = lambda _: None) -> list[Relayed]:
        """Deliver to each replica the change sets that wait for it, of all namespaces. If one replica fails, go on with the next.

        Call it at any time, from any thread or process: each replica is served by one relay at a time.

        Args:
            progress: called with what was done for a replica so far, again and again.

        Raises:
            PersistenceError: the primary failed.
        """
        self.ensure_ready()
        return [_Relay(self, replica, Relayed(name), progress).run() for name, replica in self._replicas.items()]

    def lag(self) -> Mapping[str, ReplicaLag]:
        """Return how far each replica is behind, by name; also for names in the outbox that are not replicas of this store."""
        self.ensure_ready()
        nothing = dict.fromkeys(self._replicas, ReplicaLag(0, self.repository.clock()))
        return {**nothing, **self.repository.waiting()}

    def forget(self, replica: str) -> int:
        """Discard the change sets queued for a former replica; return how many.

        Args:
            replica: its name, as in `lag`.

        Raises:
            ConfigurationError: it is a replica of this store, or a relay is at work on it.
            PersistenceError: the primary failed.
        """
        if replica in self._replicas:
            raise ConfigurationError(f"{replica!r} is a replica of this store: its change sets have to be delivered")
        self.ensure_ready()
        forgotten = 0
        with self.repository.relaying(replica) as outbox:
            if outbox is None:
                raise ConfigurationError(f"a relay is at work on {replica!r}: stop it first")
            while entries := outbox.first(_AT_ONCE):
                outbox.remove(entries)
                forgotten += len(entries)
        return forgotten

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Migrate the schemas of the primary and of all replicas; return the primary's."""
        status = super().migrate(progress)
        for replica in self._replicas.values():
            replica.migrate(progress)
        return status

    def close(self) -> None:
        """Close the stores that `mirror` opened from URLs; stores that were passed to it stay open."""
        for store in self._opened:
            store.close()


@overload
def mirror(primary: str, /, **replicas: Store[Any] | str) -> MirroredStore: ...
@overload
def mirror(primary: Store[M], /, **replicas: Store[Any] | str) -> MirroredStore[M]: ...
def mirror(primary: Store[Any] | str, /, **replicas: Store[Any] | str) -> MirroredStore[Any]:
    """Return a store that keeps everything in the primary and delivers it to replicas, in order.

    Reads and commits use the primary only, so a replica that is unreachable does not affect them. Replicas are updated by
    `MirroredStore.relay`, or by ``memory relay``. Copy once to a replica that was not empty together with the primary
    (`memory.transfer.copy`, all namespaces), after the mirror is in use.

    Args:
        primary: a SQL store, or its URL.
        replicas: any stores, or URLs, each under a name of your choice. Change sets wait under this name: use the same name in
            every process, and keep it when the replica's address or credentials change.

    Raises:
        ConfigurationError: a URL is invalid, or one store has two names, or is the primary and a replica.
        UnsupportedError: the primary is no SQL store.

    >>> import memory
    >>> store = memory.mirror("sqlite://", search="memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> [(done.replica, done.delivered) for done in store.relay()]
    [('search', 1)]
    >>> store.close()
    """
    check_distinct(primary, replicas)
    opened: list[Store[Any]] = []
    with ExitStack() as stack:

        def open_(store: Store[Any] | str, max_metadata_values: int = MAX_METADATA_VALUES) -> Store[Any]:
            if isinstance(store, Store):
                return store
            opened.append(stack.enter_context(connect(store, max_metadata_values=max_metadata_values)))
            return opened[-1]

        first = open_(primary)
        others = {name: open_(replica, first.max_metadata_values) for name, replica in replicas.items()}
        store: MirroredStore[Any] = MirroredStore(first, others, opened)
        stack.pop_all()
        return store


def check_distinct(primary: Store[Any] | str, replicas: Mapping[str, Store[Any] | str]) -> None:
    """Raise if two of these are obviously the same store. Two different URLs of one server are not noticed."""
    stores = {"the primary": primary, **{f"the replica {name!r}": store for name, store in replicas.items()}}
    names: dict[object, str] = {}
    for name, store in stores.items():
        place = _place(store)
        if place in names:
            raise ConfigurationError(f"{names[place]} and {name} are the same store")
        names[place] = name


def _place(store: Store[Any] | str) -> object:
    if isinstance(store, Store):
        return store.repository
    if is_temporary(store):
        return object()
    file = sqlite_file(store)
    return normalized(store) if file is None else Path(file).resolve()


@dataclass(slots=True)
class _Relay:
    """One delivery to one replica."""

    primary: Store[Any]
    replica: Store[Any]
    done: Relayed
    progress: Callable[[Relayed], object]

    def run(self) -> Relayed:
        is_unfinished = True
        while is_unfinished:
            is_unfinished = self._deliver_some()
            self.progress(self.done)
        return self.done

    def _deliver_some(self) -> bool:
        """Deliver the first entries that wait; return whether there may be more. Another relay may come in between."""
        delivered: list[OutboxEntry] = []
        with self.primary.repository.relaying(self.done.replica) as outbox:
            if outbox is None:
                self.done.busy = True
                return False
            entries = outbox.first(_AT_ONCE)
            end = time.monotonic() + _ROUND
            try:
                for entry in entries:
                    self._deliver(entry)
                    delivered.append(entry)
                    if time.monotonic() > end:
                        break
            except PersistenceError as error:
                _log.warning(
                    "the delivery to the replica %r failed, and will be repeated: %s", self.done.replica, str(error)
                )
                self.done.failure = _without_frames(error)
            outbox.remove(delivered)  # if this fails, they are delivered again
        self.done.delivered += len(delivered)
        return self.done.failure is None and (len(entries) == _AT_ONCE or len(delivered) < len(entries))

    def _deliver(self, entry: OutboxEntry) -> None:
        replica = self.replica.namespace(entry.namespace)
        together = replica.repository.capabilities.many_conversations
        try:
            for changes in [entry.changes] if together else entry.changes.split():
                replica.commit(_for(replica, changes))
        except _DOES_NOT_FIT as error:
            _log.info("copying conversations to the replica %r: %s", self.done.replica, str(error))
            primary = self.primary.namespace(entry.namespace)
            for change in entry.changes.changes:
                self.done.repaired += copy_conversation(primary, replica, change.id).outcome != "equal"


def _without_frames(error: PersistenceError) -> PersistenceError:
    """Return the error without its frames, which would keep connections alive, and the object that holds the error."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _for(replica: Store[Any], changes: ChangeSet) -> ChangeSet:
    """Return a change set that the replica refuses unless each conversation is in the state that the change was made for."""
    return ChangeSet(tuple([_expecting(replica, change) for change in changes.changes]), changes.token, changes.at)


def _expecting(replica: Store[Any], change: Change) -> Change:
    if change.expected is None:
        return change
    found = get_record(replica, change.id)
    incarnation = "" if found is None else found.incarnation
    return change._replace(expected=ExpectedVersion(incarnation, change.expected.version))
