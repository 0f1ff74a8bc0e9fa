"""The server as a process of its own: ``python -m tests.cloud_server`` prints its address, and ends with its input."""

import sys

from tests.cloud_server.serving import CloudServer


def main() -> None:
    server = CloudServer()
    sys.stdout.write(f"{server.host}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
