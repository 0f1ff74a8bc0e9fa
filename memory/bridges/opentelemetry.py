"""OpenTelemetry for a store: a span for each of its operations, and metrics. Needs the extra ``opentelemetry``.

Names follow OpenTelemetry's semantic conventions for database clients. Only names, numbers and the classes of errors are
recorded: no metadata, inputs or outputs, no ids, and no messages of errors, which can quote them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Final, TypeVar, cast
from weakref import ref

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from memory.core.store import Store
from memory.errors import ConflictError, PersistenceError
from memory.port.outbox import Outbox
from memory.port.repository import Repository
from memory.transfer.mirroring import MirroredStore

S = TypeVar("S", bound=Store[Any])
Attributes = dict[str, str | int]

_SYSTEMS: Final = {
    "RedisRepository": "redis",
    "DynamoDbRepository": "aws.dynamodb",
    "GriptapeCloudRepository": "griptape_cloud",
    "InMemoryRepository": "memory",
}
_ROWS: Final = "db.response.returned_rows"
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # seconds, as the conventions recommend


def instrument(
    store: S,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    namespaces: bool = False,
) -> S:
    """Record a span and metrics for each operation of a store, in all its namespaces, and of the replicas of a mirror.

    Args:
        store: the store, which is changed in place.
        tracer_provider: where spans go; default: the global provider.
        meter_provider: where metrics go; default: the global provider.
        namespaces: record the namespace as ``db.namespace``. Leave it out if namespaces are many, or name people.

    Returns:
        The same store.

    >>> import memory
    >>> store = instrument(memory.connect("memory://"))
    """
    if isinstance(store.repository, _Observed):
        return store
    telemetry = _Telemetry(_system(store.repository), tracer_provider, meter_provider, namespaces=namespaces)
    shared = store._shared  # noqa: SLF001  # of the same package; a public setter would invite other uses
    shared.repository = cast(Repository, _Observed(store.repository, telemetry))
    shared.on_retry = telemetry.retrying(shared.on_retry)
    if isinstance(store, MirroredStore):
        telemetry.watch_lag(store)
        for replica in store.replicas.values():
            instrument(replica, tracer_provider=tracer_provider, meter_provider=meter_provider, namespaces=namespaces)
    return store


def _system(repository: Repository) -> str:
    """Return ``db.system.name``: of a SQL repository, its engine's; of others, by their class."""
    if (engine := getattr(repository, "engine", None)) is not None:
        return str(engine.dialect.name)
    name = type(repository).__name__
    return _SYSTEMS.get(name, name)


class _Telemetry:
    """The tracer and the instruments of one store."""

    def __init__(
        self, system: str, tracers: TracerProvider | None, meters: MeterProvider | None, *, namespaces: bool
    ) -> None:
        self._system = system
        self._namespaces = namespaces
        self._tracer = trace.get_tracer(__name__, tracer_provider=tracers)
        self._meter: Meter = metrics.get_meter(__name__, meter_provider=meters)
        self._duration = self._meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of operations of the store",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._conflicts = self._meter.create_counter("memory.conflicts", "{conflict}", "Commits refused by a conflict")
        self._retries = self._meter.create_counter(
            "memory.retries", "{retry}", "Units of work, and commits in doubt, that were repeated"
        )

    @contextmanager
    def operation(self, name: str, namespace: str | None = None) -> Iterator[Span]:
        """Record the block as an operation."""
        attributes: Attributes = {"db.system.name": self._system, "db.operation.name": name}
        if self._namespaces and namespace is not None:
            attributes["db.namespace"] = namespace
        begun = perf_counter()
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                if isinstance(error, ConflictError):
                    self._conflicts.add(1, attributes)
                attributes["error.type"] = type(error).__name__
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                self._duration.record(perf_counter() - begun, attributes)

    def retrying(self, then: Callable[[PersistenceError], object]) -> Callable[[PersistenceError], None]:
        """Return a function that counts a retry, and adds it as an event to the span that is open."""

        def on_retry(error: PersistenceError) -> None:
            attributes = {"db.system.name": self._system, "error.type": type(error).__name__}
            self._retries.add(1, attributes)
            trace.get_current_span().add_event("memory.retry", attributes)
            then(error)

        return on_retry

    def watch_lag(self, store: MirroredStore[Any]) -> None:
        """Measure what waits for the replicas whenever metrics are collected, as long as the store is used."""
        mirrored = ref(store)

        def observed(index: int) -> Callable[[CallbackOptions], Iterator[Observation]]:
            def observe(_: CallbackOptions) -> Iterator[Observation]:
                try:
                    found = store.lag() if (store := mirrored()) else {}
                    for replica, (pending, oldest) in found.items():
                        age = (store.repository.clock() - oldest) / 1e6 if store and pending else 0.0
                        yield Observation((age, pending)[index], {"memory.replica": replica})
                except PersistenceError:  # closed, or out of reach
                    return

            return observe

        gauges = [
            ("memory.relay.lag", "s", "Age of the oldest change set that waits for a replica"),
            ("memory.relay.pending", "{change_set}", "Change sets that wait for a replica"),
        ]
        for index, (name, unit, description) in enumerate(gauges):
            self._meter.create_observable_gauge(name, [observed(index)], unit, description)


def _commit(_: object, arguments: tuple[Any, ...]) -> Attributes:
    changes = arguments[1].changes
    runs = sum(len(change.append) for change in changes)
    return {"memory.commit.conversations": len(changes), "memory.commit.runs": runs}


_OPERATIONS: Final[Mapping[str, Callable[[Any, tuple[Any, ...]], Attributes]]] = {
    "get": lambda found, _: {_ROWS: int(found is not None)},
    "find": lambda page, _: {_ROWS: len(page)},
    "count": lambda *_: {},
    "explain": lambda *_: {},
    "runs": lambda read, _: {_ROWS: len(read.runs)},
    "namespaces": lambda names, _: {_ROWS: len(names)},
    "commit": _commit,
    "forget": lambda *_: {},
    "purge_expired": lambda purged, _: {"memory.purged": purged},
    "migrate": lambda *_: {},
}
"""The operations that are recorded, each with what is recorded of its result and its arguments."""


class _Observed:
    """A repository whose operations are recorded. Everything else, including what is added to the port later, passes through."""

    _repository: Repository
    _telemetry: _Telemetry

    def __init__(self, repository: Repository, telemetry: _Telemetry) -> None:
        vars(self).update(_repository=repository, _telemetry=telemetry)

    @property  # type: ignore[misc]  # read-only
    def __class__(self) -> Any:  # for `isinstance`, by which a unit of work recognizes a joined repository
        return type(self._repository)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._repository, name)
        if name in ("joining", "with_outbox"):
            return lambda argument: _Observed(found(argument), self._telemetry)
        if name == "relaying":
            return lambda replica: self._relaying(found(replica))
        return self._recorded(name, found) if name in _OPERATIONS else found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._repository, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._repository, name)

    def __repr__(self) -> str:
        return repr(self._repository)

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            namespace = arguments[0] if arguments and isinstance(arguments[0], str) else None
            with self._telemetry.operation(name, namespace) as span:
                result = method(*arguments, **options)
                span.set_attributes(_OPERATIONS[name](result, arguments))
                return result

        return call

    @contextmanager
    def _relaying(self, locked: AbstractContextManager[Outbox | None]) -> Iterator[Outbox | None]:
        with self._telemetry.operation("relay"), locked as outbox:
            yield outbox
