"""The contract notices every fault that was put on purpose into the reference: else it proves little of other stores."""

from collections.abc import Callable, Iterator
from inspect import signature

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.base import Clock, new_store
from memory.testing.queries import Queries
from memory.testing.random_queries import RandomQueries
from memory.testing.round_trips import RoundTrips
from memory.testing.state_machine import SameAsTheReference
from tests.contract.faults import FAULTS

SLOW = (
    RoundTrips,
    Queries,
    RandomQueries,
    SameAsTheReference,
)  # these last: the others notice most of the faults at once


class _Quick(RepositoryContract):
    examples = 20


def _names() -> list[str]:
    parts = sorted(RepositoryContract.mro(), key=lambda part: SLOW.index(part) if part in SLOW else -1)
    return [name for part in parts for name in vars(part) if name.startswith("test_")]


def failures(make: Callable[[], Repository]) -> Iterator[tuple[str, BaseException]]:
    """Yield the tests of the contract that fail on such a repository, each with its error."""
    for name in _names():
        test = getattr(_Quick(), name)
        repository = make()
        made: dict[str, object] = {"repository": repository, "store": new_store(repository)}
        if "clock" in (parameters := signature(test).parameters):
            made["clock"] = repository.clock = Clock()
        try:
            test(**{parameter: made[parameter] for parameter in parameters})
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # whatever a test fails with
            yield name, error


def test_the_reference_passes() -> None:
    assert [(name, repr(error)) for name, error in failures(InMemoryRepository)] == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_noticed(fault: type[InMemoryRepository]) -> None:
    assert next(failures(fault), None) is not None, f"no test fails where {fault.__doc__}"


def test_a_subclass_cannot_leave_tests_out() -> None:
    with pytest.raises(TypeError, match="test_purging"):
        type("TestLenient", (RepositoryContract,), {"test_purging": None})


def test_every_test_says_what_it_proves() -> None:
    undocumented = [name for name in _names() if not (getattr(RepositoryContract, name).__doc__ or "").endswith(".")]
    assert undocumented == []
