"""Why a connection could not be made: what adapters read in the errors behind a driver's error."""

import socket
from typing import Final

_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))  # EAI_AGAIN is temporary


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an error followed by its causes and contexts. An error that is raised again can be its own context."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def is_unknown_host(error: BaseException) -> bool:
    """Return whether the name server knows no host of the name."""
    return isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST
