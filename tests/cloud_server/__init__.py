"""A server of the Griptape Cloud contract (threads and messages), with every unknown a switch and every fault on demand."""

from tests.cloud_server.assumptions import Assumptions
from tests.cloud_server.faults import Fault, Request
from tests.cloud_server.serving import KEYS, CloudServer

__all__ = ["KEYS", "Assumptions", "CloudServer", "Fault", "Request"]
