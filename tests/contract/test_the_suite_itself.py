"""The contract notices every fault that was put on purpose into the reference: else it proves little of other stores."""

from collections.abc import Callable, Iterator
from inspect import signature

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.base import Clock, new_store
from tests.contract.faults import FAULTS

SLOW = (  # these last, for most faults are noticed by a quick one
    "test_a_rare_match_among_many",
    "test_any_metadata_comes_back_exactly",
    "test_any_run_comes_back_exactly",
    "test_the_limits_of_values_come_back",
    "test_order_of_numbers",
    "test_order_of_strings",
    "test_one_of_several",
    "test_equality",
    "test_nested_negations_agree_with_matches",
    "test_it_is_the_same_as_the_reference",
    "test_queries_agree_with_matches",
)


class _Quick(RepositoryContract):
    examples = 20


def _names() -> list[str]:
    names = [name for part in reversed(RepositoryContract.mro()) for name in vars(part) if name.startswith("test_")]
    return sorted(names, key=lambda name: SLOW.index(name) if name in SLOW else -1)


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
