"""How a store's conversations carry their metadata: as the dict that is stored, or as a type of the application's."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from typing_extensions import TypeVar

T = TypeVar("T")


class Codec(Protocol[T]):
    """Converts metadata between a type of the application's and the dict of JSON values that is stored."""

    def decode(self, stored: dict[str, Any]) -> T:
        """Return the metadata for a stored dict."""

    def encode(self, metadata: T) -> dict[str, Any]:
        """Return the dict to store; raise `InvalidValueError` for metadata that cannot be stored."""


class Untyped:
    """The codec of a store without a type: metadata is the dict itself."""

    def decode(self, stored: dict[str, Any]) -> dict[str, Any]:
        return stored

    def encode(self, metadata: dict[str, Any]) -> dict[str, Any]:
        return metadata if type(metadata) is dict or not isinstance(metadata, Mapping) else dict(metadata)


UNTYPED: Final = Untyped()
