"""The contract that every repository keeps, as tests: for those who write an adapter.

    class TestMyStore(RepositoryContract):
        @pytest.fixture
        def repository(self) -> Iterator[Repository]:
            with closing(MyRepository(...)) as repository:
                yield repository

One repository may serve all tests: each works in a namespace of its own. `RepositoryContract.examples` says how many random
examples each property is tried with. This needs pytest and hypothesis; nothing else of the package imports it.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "base",
            "conflicts",
            "expiry",
            "ordering",
            "planning",
            "queries",
            "random_queries",
            "round_trips",
            "state_machine",
            "units_of_work",
        )
    )
)

from memory.testing.conflicts import Conflicts, Replays  # noqa: E402  # after the line that makes their asserts speak
from memory.testing.expiry import Expiry  # noqa: E402
from memory.testing.ordering import Namespaces, Pages, Positions, Times  # noqa: E402
from memory.testing.queries import Queries  # noqa: E402
from memory.testing.random_queries import RandomQueries  # noqa: E402
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
    Queries,
    RandomQueries,
    SameAsTheReference,
):
    """All that a repository promises. Subclass it, and give it a fixture ``repository``; override nothing else.

    What a store cannot do is read from `Repository.capabilities`: the tests of it are expected to fail.
    """

    def __init_subclass__(cls) -> None:
        """Refuse a subclass that leaves a test out by putting another in its place."""
        super().__init_subclass__()
        if overridden := sorted(
            name for name in vars(cls) if name.startswith("test_") and hasattr(RepositoryContract, name)
        ):
            raise TypeError(f"{cls.__name__} overrides tests of the contract: {', '.join(overridden)}")
