from collections.abc import Iterator
from typing import Any

import pytest

import memory
from memory import Store
from tests.typed_metadata import URLS
from tests.typed_metadata.adding import Opened


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    """Open the same store with different types of metadata."""
    with memory.connect(url) as base:

        def open_(metadata: Any = None, **options: Any) -> Store[Any]:
            return Store(base.repository, metadata=metadata, **options)

        yield open_
