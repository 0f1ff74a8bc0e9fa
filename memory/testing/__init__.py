"""The contract of repositories as a test suite, for authors of adapters.

    class TestMyStore(RepositoryContract):
        @pytest.fixture
        def repository(self) -> Iterator[Repository]:
            with closing(MyRepository(...)) as repository:
                yield repository

The tests may share one repository, because each works in its own namespace. `RepositoryContract.examples` sets the number of
random examples for each property. The suite needs pytest and hypothesis; the rest of the package does not import it.
"""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*[f"{__name__}.{module.name}" for module in iter_modules(__path__)])

from memory.testing.conflicts import Conflicts, Replays  # noqa: E402  # after the line that makes their asserts speak
from memory.testing.conveniences import Conveniences, IdempotencyKeys  # noqa: E402
from memory.testing.expiry import Expiry  # noqa: E402
from memory.testing.open_runs import OpenRuns  # noqa: E402
from memory.testing.ordering import Namespaces, Pages, Positions, Times  # noqa: E402
from memory.testing.planning import Planning  # noqa: E402
from memory.testing.queries import Queries  # noqa: E402
from memory.testing.random_queries import RandomQueries  # noqa: E402
from memory.testing.retention import Retaining, Rewinding, SlidingExpiry  # noqa: E402
from memory.testing.round_trips import RoundTrips  # noqa: E402
from memory.testing.state_machine import SameAsTheReference  # noqa: E402
from memory.testing.units_of_work import UnitsOfWork  # noqa: E402

__all__ = ["RepositoryContract"]


class RepositoryContract(
    RoundTrips,
    Positions,
    Times,
    Pages,
    Namespaces,
    UnitsOfWork,
    Conflicts,
    Replays,
    Expiry,
    SlidingExpiry,
    Retaining,
    Rewinding,
    OpenRuns,
    Conveniences,
    IdempotencyKeys,
    Queries,
    Planning,
    RandomQueries,
    SameAsTheReference,
):
    """Every promise of a repository. Subclass it and define the fixture ``repository``; override nothing else.

    Tests of capabilities that `Repository.capabilities` denies are expected to fail.
    """

    def __init_subclass__(cls) -> None:
        """Raise `TypeError` if the subclass overrides a test."""
        super().__init_subclass__()
        tests = {name for name in dir(RepositoryContract) if name.startswith("test_")}
        if overridden := sorted(tests & vars(cls).keys()):
            raise TypeError(f"{cls.__name__} overrides tests of the contract: {', '.join(overridden)}")
