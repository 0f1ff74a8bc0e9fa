"""The examples in the bridge's docstrings: they import griptape, so plain doctest collection leaves them out."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import memory.bridges.griptape as bridge

MODULES = [bridge.__name__, *[f"{bridge.__name__}.{module.name}" for module in pkgutil.iter_modules(bridge.__path__)]]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples() -> None:
    assert sum(doctest.testmod(import_module(name)).attempted for name in MODULES) > 10


def test_every_public_name_is_documented() -> None:
    for name in bridge.__all__:
        assert getattr(bridge, name).__doc__
