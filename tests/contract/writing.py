"""The contract without its questions, for a store that answers those as another one does, which is asked them all."""

from memory.testing.conflicts import Conflicts, Replays
from memory.testing.expiry import Expiry
from memory.testing.ordering import Namespaces, Pages, Positions, Times
from memory.testing.round_trips import RoundTrips
from memory.testing.state_machine import SameAsTheReference
from memory.testing.units_of_work import UnitsOfWork


class WritingContract(
    RoundTrips, Positions, Times, Pages, Namespaces, UnitsOfWork, Conflicts, Replays, Expiry, SameAsTheReference
):
    """Every part but `Queries`, `Planning` and `RandomQueries`."""
