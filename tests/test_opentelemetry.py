"""What the OpenTelemetry bridge records, read back from the SDK's exporters; and that the store is as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import create_engine

import memory
from memory import CommitInDoubtError, ConflictError, Conversation, Run, Store, StoreUnavailableError, where
from memory.adapters.in_memory import InMemoryRepository
from memory.adapters.sql import SqlRepository
from memory.bridges.opentelemetry import instrument
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.test_store import Faulty, add


class Recorded(NamedTuple):
    tracers: TracerProvider
    meters: MeterProvider
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader

    def instrument(self, store: Store, *, namespaces: bool = False) -> Store:
        return instrument(store, tracer_provider=self.tracers, meter_provider=self.meters, namespaces=namespaces)

    def taken(self) -> list[ReadableSpan]:
        found = self.spans.get_finished_spans()
        self.spans.clear()
        return list(found)

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = [
            metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        ]
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield Recorded(tracers, meters, spans, reader)
    tracers.shutdown()
    meters.shutdown()


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name != "db.operation.name"}


def test_each_operation_is_a_span(recorded: Recorded, tmp_path: Path) -> None:
    with recorded.instrument(memory.connect(f"sqlite:///{tmp_path}/x.db")) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", metadata={"secret": "s3cret"}))
            uow.runs.append("a", Run("s3cret", ""), Run("s3cret", ""))
        with store.begin() as uow:
            uow.conversations.get("a")
            uow.conversations.find(where("secret") == "s3cret")
            uow.conversations.count()
            uow.runs.list("a")
            uow.runs.last("nobody", 1)
        store.namespaces()
        store.explain()
        assert store.purge_expired() == 0
        store.migrate()
    spans = recorded.taken()
    system, rows = {"db.system.name": "sqlite"}, "db.response.returned_rows"
    assert [(span.name, facts(span)) for span in spans] == [
        ("migrate", system),
        ("commit", {**system, "memory.commit.conversations": 1, "memory.commit.runs": 2}),
        ("get", {**system, rows: 1}),
        ("find", {**system, rows: 1}),
        ("count", system),
        ("runs", {**system, rows: 2}),
        ("runs", {**system, rows: 0}),
        ("namespaces", {**system, rows: 1}),
        ("explain", system),
        ("purge_expired", {**system, "memory.purged": 0}),
        ("migrate", system),
    ]
    assert {span.kind for span in spans} == {SpanKind.CLIENT}
    assert "s3cret" not in "".join(span.to_json() for span in spans)
    points = recorded.metrics()["db.client.operation.duration"]
    assert {(point.attributes["db.operation.name"], point.count) for point in points} >= {("runs", 2), ("commit", 1)}


def test_namespaces_are_recorded_where_they_are_asked_for(recorded: Recorded) -> None:
    recorded.instrument(memory.connect("memory://", namespace="ada")).run(add("a"))
    assert "db.namespace" not in facts(recorded.taken()[-1])
    store = recorded.instrument(memory.connect("memory://"), namespaces=True)
    store.namespace("ada").run(add("a"))
    (span,) = recorded.taken()
    assert facts(span)["db.namespace"] == "ada"


@pytest.mark.parametrize(
    "error", [ConflictError("s3cret"), StoreUnavailableError("s3cret"), CommitInDoubtError("s3cret")]
)
def test_errors_and_retries(recorded: Recorded, error: memory.PersistenceError) -> None:
    store = recorded.instrument(Store(Faulty(error, error)))
    with recorded.tracers.get_tracer("application").start_as_current_span("turn"):
        store.run(add("a"))
    *commits, turn = recorded.taken()
    name = type(error).__name__
    assert [span.status.status_code for span in commits] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [facts(span).get("error.type") for span in commits] == [name, name, None]
    assert [(event.name, (event.attributes or {})["error.type"]) for event in turn.events] == [
        ("memory.retry", name)
    ] * 2
    assert "s3cret" not in "".join(span.to_json() for span in commits)
    measured = recorded.metrics()
    assert [(point.attributes["error.type"], point.value) for point in measured["memory.retries"]] == [(name, 2)]
    conflicts = [point.value for point in measured.get("memory.conflicts", [])]
    assert conflicts == ([2] if isinstance(error, ConflictError) else [])


def test_a_mirror_shows_its_deliveries_and_its_lag(recorded: Recorded) -> None:
    store = memory.mirror("sqlite://", search="memory://")
    recorded.instrument(store)
    store.run(add("a"))
    measured = recorded.metrics()
    (lag,), (pending,) = measured["memory.relay.lag"], measured["memory.relay.pending"]
    assert (lag.attributes["memory.replica"], pending.value) == ("search", 1)
    assert 0 <= lag.value < 60
    recorded.taken()
    assert [done.delivered for done in store.relay()] == [1]
    delivery, relay = recorded.taken()[-2:]
    assert relay.name == "relay"
    assert (delivery.name, facts(delivery)["db.system.name"]) == ("commit", "memory")
    assert delivery.parent is not None
    assert relay.context is not None
    assert delivery.parent.span_id == relay.context.span_id
    measured = recorded.metrics()
    assert [point.value for point in measured["memory.relay.lag"]] == [0]
    store.close()
    recorded.metrics()  # nothing is asked of a closed store


def test_a_joined_unit_of_work_is_recorded(recorded: Recorded, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    store = recorded.instrument(Store(SqlRepository(engine)))
    store.migrate()
    committed: list[object] = []
    store.subscribe(committed.append)
    with engine.begin() as connection:
        with store.begin(connection=connection) as uow:
            uow.conversations.add(Conversation("a"))
        assert committed == []
    assert len(committed) == 1
    assert [span.name for span in recorded.taken()] == ["migrate", "commit"]
    with engine.connect() as connection:
        with store.begin(connection=connection) as uow:
            rolled_back = Conversation("b")
            uow.conversations.add(rolled_back)
        connection.rollback()
    assert rolled_back.version == 0
    engine.dispose()


def test_instrumenting_twice_records_once(recorded: Recorded) -> None:
    store = recorded.instrument(memory.connect("memory://"))
    assert recorded.instrument(store) is store
    store.run(add("a"))
    assert len(recorded.taken()) == 1
    assert repr(store.repository) == "InMemoryRepository()"


class TestInstrumented(RepositoryContract):
    """An instrumented repository keeps the contract. No provider is set: what is recorded goes nowhere."""

    @pytest.fixture
    def repository(self) -> Repository:
        return instrument(Store(InMemoryRepository()), namespaces=True).repository
