"""Servers that run in containers, where a Docker engine answers."""

import socket
from collections.abc import Callable
from typing import Final

from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient, get_docker_host

from tests.servers import ServerError, free_port, wait_until

THIS_MACHINE: Final = "host.docker.internal"
"""The name under which a container reaches the ports of this machine."""


class ContainerServer:
    """A container of `image`, whose `port` is published where `url` (a template of host and port) says."""

    def __init__(
        self,
        image: str,
        *,
        port: int,
        url: str,
        answers: Callable[[str], object],
        environment: dict[str, str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        _require_engine()
        # A port of our choice, because one that Docker chooses changes with a restart.
        self._container = DockerContainer(image, env=environment, extra_hosts={THIS_MACHINE: "host-gateway"})
        self._container.with_bind_ports(port, free_port())
        if command is not None:
            self._container.with_command(command)
        self._answers = answers
        try:
            self._container.start()
            host, published = self._container.get_container_host_ip(), self._container.get_exposed_port(port)
            self.url = url.format(host=host, port=published)
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        def still_possible() -> None:
            self._container.reload()
            if self._container.status not in {"created", "running"}:
                output, errors = self._container.get_logs()
                raise ServerError(f"the container ended:\n{(output + errors).decode(errors='replace')[-2000:]}")

        wait_until(lambda: self._answers(self.url), still_possible=still_possible, seconds=60)

    def kill(self) -> None:
        """End the container by SIGKILL, and return when it is gone."""
        self._container.get_wrapped_container().kill()
        self._container.wait()

    def restart(self) -> None:
        """Start the killed container again, and return when it answers."""
        self._container.get_wrapped_container().start()
        self._wait()

    def stop(self) -> None:
        """Remove the container and its data."""
        self._container.stop()


def _require_engine() -> None:
    """Raise within seconds where no Docker engine answers, so that the next way has its turn."""
    kind, _, address = (get_docker_host() or "unix:///var/run/docker.sock").partition("://")
    if kind == "unix":  # the client leaves its socket open when it cannot connect
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address)
    engine = DockerClient(timeout=3).client
    try:
        engine.ping()
    finally:
        engine.close()
