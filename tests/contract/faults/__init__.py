"""Faults put into the reference on purpose, one in each class: the contract has to notice every one of them."""

from collections.abc import Iterator

from tests.contract.faults import committing, finding, keeping, retaining
from tests.contract.faults.base import Faulty

__all__ = ["FAULTS", "committing", "finding", "keeping", "retaining"]


def _all_subclasses(faulty: type[Faulty]) -> Iterator[type[Faulty]]:
    for subclass in faulty.__subclasses__():
        yield subclass
        yield from _all_subclasses(subclass)


FAULTS = tuple(fault for fault in _all_subclasses(Faulty) if not fault.__name__.startswith("_"))
