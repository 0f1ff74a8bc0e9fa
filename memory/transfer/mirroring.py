"""A mirror: one primary, and replicas that get all that is written to it, in order, even if they are away for a while.

Each commit to the primary adds, in the same transaction, an outbox entry for each replica. A relay delivers them
(`MirroredStore.relay`), and may die at any moment: parcels that come twice are recognized. A replica that is not in the state
that a parcel was made for gets the conversation as it is in the primary now; what is still to come for it is then told so too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from memory.core.connect import connect
from memory.core.store import Store
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
from memory.port.outbox import Outbox, OutboxEntry, ReplicaLag
from memory.port.repository import Progress, SchemaStatus, no_progress
from memory.transfer import copy_conversation
from memory.transfer.reading import get_record

_AT_ONCE: Final = 100  # parcels between two deletions from the outbox, each of which syncs the primary's disk
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
        replica: its name.
        delivered: how many change sets it has got.
        repaired: how many conversations were copied anew, because it was not in the state that a change set was made for.
        busy: another relay is at it.
        failure: what ended the delivery; all that was not delivered waits.
    """

    replica: str
    delivered: int = 0
    repaired: int = 0
    busy: bool = False
    failure: PersistenceError | None = None


class MirroredStore(Store):
    """A store whose commits go to the primary, and from there to the replicas; made by `mirror`."""

    def __init__(self, primary: Store, replicas: Sequence[Store], opened: Sequence[Store] = ()) -> None:
        self._replicas = {replica_name(replica): replica for replica in replicas}
        if len(self._replicas) < len(replicas):
            raise ConfigurationError(f"two replicas are the same: {', '.join(map(replica_name, replicas))}")
        if replica_name(primary) in self._replicas:
            raise ConfigurationError(f"{replica_name(primary)} is to be a replica of itself")
        super().__init__(primary.repository.with_outbox(list(self._replicas)), primary.namespace_name)
        self._opened = opened

    @property
    def replicas(self) -> tuple[Store, ...]:
        """The replicas, in the namespaces they were opened with."""
        return tuple(self._replicas.values())

    def relay(self) -> list[Relayed]:
        """Deliver to each replica what waits for it, of all namespaces; go on with the next one where one fails.

        It may be called anywhere, at any time and by several processes: a replica has one relay at a time.

        Raises:
            PersistenceError: the primary failed.
        """
        self.ensure_ready()
        return [_Relay(self, replica, Relayed(name)).run() for name, replica in self._replicas.items()]

    def lag(self) -> Mapping[str, ReplicaLag]:
        """Return how far each replica is behind, by name; also those that are no replicas any more and have parcels waiting."""
        self.ensure_ready()
        nothing = dict.fromkeys(self._replicas, ReplicaLag(0, self.repository.clock()))
        return {**nothing, **self.repository.waiting()}

    def forget(self, replica: str) -> int:
        """Throw away what waits for a replica that is none any more; return how many change sets that were.

        Args:
            replica: its name, as `lag` has it.

        Raises:
            ConfigurationError: it is one of this store's replicas, or a relay is at work on it.
            PersistenceError: the primary failed.
        """
        if replica in self._replicas:
            raise ConfigurationError(f"{replica} is a replica of this store: it would lack what waits for it")
        self.ensure_ready()
        forgotten = 0
        with self.repository.relaying(replica) as outbox:
            if outbox is None:
                raise ConfigurationError(f"a relay is at work on {replica}")
            while parcels := outbox.parcels(_AT_ONCE):
                outbox.delivered(parcels)
                forgotten += len(parcels)
        return forgotten

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Bring the schemas of the primary and of all replicas to those this code needs; return the primary's."""
        status = super().migrate(progress)
        for replica in self._replicas.values():
            replica.migrate(progress)
        return status

    def close(self) -> None:
        """Release what `mirror` opened; stores that were handed in stay open."""
        for store in self._opened:
            store.close()


def mirror(primary: Store | str, *replicas: Store | str) -> MirroredStore:
    """Return a store that keeps everything in the primary, and sends it on to replicas, in order and once in effect.

    Reads and commits are the primary's: a replica that is away stands in nobody's way. Replicas follow when `MirroredStore.relay`
    or ``memory relay`` is called. A replica that did not begin empty together with the primary is to be copied to once
    (`memory.transfer.copy`, all namespaces), after the mirror was begun.

    Args:
        primary: a SQL store, or its URL.
        replicas: any stores, or URLs. What waits for one is kept under its `replica_name`.

    Raises:
        ConfigurationError: a URL cannot be one, two replicas are the same, or one is the primary.
        UnsupportedError: the primary cannot be one.

    >>> import memory
    >>> store = memory.mirror("sqlite://", "memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> [(done.replica, done.delivered) for done in store.relay()]
    [('InMemoryRepository()', 1)]
    >>> store.close()
    """
    opened: list[Store] = []

    def open_(store: Store | str) -> Store:
        if isinstance(store, Store):
            return store
        opened.append(connect(store))
        return opened[-1]

    try:
        return MirroredStore(open_(primary), [open_(replica) for replica in replicas], opened)
    except BaseException:
        for store in opened:
            store.close()
        raise


def replica_name(store: Store) -> str:
    """Return the name that parcels for a replica are kept under: the repr of its repository, which has its address.

    >>> from memory import connect
    >>> replica_name(connect("sqlite:///copies.db"))
    'SqlRepository(sqlite:///copies.db)'
    """
    return repr(store.repository)


@dataclass(slots=True)
class _Relay:
    """One delivery to one replica."""

    primary: Store
    replica: Store
    done: Relayed

    def run(self) -> Relayed:
        """Deliver all there is."""
        with self.primary.repository.relaying(self.done.replica) as outbox:
            if outbox is None:
                self.done.busy = True
            while outbox is not None and self.done.failure is None and (parcels := outbox.parcels(_AT_ONCE)):
                self._deliver_some(outbox, parcels)
        return self.done

    def _deliver_some(self, outbox: Outbox, parcels: Sequence[OutboxEntry]) -> None:
        delivered: list[OutboxEntry] = []
        try:
            for parcel in parcels:
                self._deliver(parcel)
                delivered.append(parcel)
        except PersistenceError as error:
            self.done.failure = _without_frames(error)
        outbox.delivered(delivered)  # should this fail, they come again
        self.done.delivered += len(delivered)

    def _deliver(self, parcel: OutboxEntry) -> None:
        replica = self.replica.namespace(parcel.namespace)
        together = replica.repository.capabilities.many_conversations
        try:
            for changes in [parcel.changes] if together else parcel.changes.split():
                replica.commit(_for(replica, changes))
        except _DOES_NOT_FIT:
            primary = self.primary.namespace(parcel.namespace)
            for change in parcel.changes.changes:
                self.done.repaired += copy_conversation(primary, replica, change.id).outcome != "equal"


def _without_frames(error: PersistenceError) -> PersistenceError:
    """Return an error that can be kept: its frames refer to connections, and to what it is kept in."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _for(replica: Store, changes: ChangeSet) -> ChangeSet:
    """Return a change set that is refused unless each conversation is in the state that the change was made for."""
    return ChangeSet(tuple([_seen_by(replica, change) for change in changes.changes]), changes.token, changes.at)


def _seen_by(replica: Store, change: Change) -> Change:
    if change.seen is None:
        return change
    found = get_record(replica, change.id)
    incarnation = "" if found is None else found.incarnation
    return replace(change, seen=ExpectedVersion(incarnation, change.seen.version))
