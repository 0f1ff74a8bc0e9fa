"""Griptape Cloud keeps the contract, on a test server of its API; what it cannot promise is in its capabilities."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.cloud_server import CloudServer
from tests.rounds import rounds


class TestCloud(RepositoryContract):
    examples = rounds(8)  # each of many requests

    @pytest.fixture
    def repository(self, cloud_server: CloudServer) -> Iterator[Repository]:
        with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
            # its clock is the service's, so that the times of both can be compared
            cloud_server.service.clock = lambda: repository.clock()  # noqa: PLW0108  # the test sets another one
            yield repository
