"""How a store's conversations carry their metadata: as the dict that is stored, or as a type of the application's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from memory.domain.encoding import either, is_model, to_json
from memory.domain.records import decode_metadata, encode_metadata
from memory.domain.values import Default, to_values
from memory.errors import ConfigurationError, CorruptRecordError, InvalidValueError, PersistenceError

T = TypeVar("T")

VERSION_KEY: Final = "_version"
"""The key of `Versioned` in the stored metadata."""


class Codec(Protocol[T]):
    """Converts metadata between a type of the application's and the dict of JSON values that is stored."""

    def decode(self, stored: dict[str, Any], /) -> T:
        """Return the metadata for a stored dict; raise a ``ValueError`` or ``TypeError`` for one that does not fit."""
        ...

    def encode(self, metadata: T, /) -> dict[str, Any]:
        """Return the dict to store, whose values `memory.to_json` may encode; raise `InvalidValueError` for other metadata."""
        ...


class Untyped:
    """The codec of a store without a type: metadata is the dict itself."""

    def decode(self, stored: dict[str, Any], /) -> dict[str, Any]:
        return stored

    def encode(self, metadata: dict[str, Any], /) -> dict[str, Any]:
        return metadata if type(metadata) is dict or not isinstance(metadata, Mapping) else dict(metadata)


UNTYPED: Final = Untyped()


class Typed(Generic[T]):
    """The codec of a dataclass, a TypedDict or a pydantic model.

    Args:
        kind: the class.

    Raises:
        ConfigurationError: it is another class, or metadata cannot contain the type of one of its fields.
    """

    def __init__(self, kind: type[T]) -> None:
        from typing_extensions import is_typeddict

        from memory.domain.decoding import decoder_for  # most stores have no type

        if not (isinstance(kind, type) and (is_dataclass(kind) or is_typeddict(kind) or is_model(kind))):
            raise ConfigurationError(
                f"the type of metadata must be a dataclass, a TypedDict, a pydantic model or an object with encode and decode, "
                f"not {kind!r:.100}"
            )
        self._kind = kind
        self._class: type = dict if is_typeddict(kind) else kind
        self._decoder = decoder_for(kind, "the metadata")

    def decode(self, stored: dict[str, Any], /) -> T:
        return cast(T, self._decoder(stored, "metadata"))

    def encode(self, metadata: T, /) -> dict[str, Any]:
        if not isinstance(metadata, self._class):
            raise InvalidValueError(f"metadata must be a {self._kind.__name__}, not a {type(metadata).__name__}")
        if is_model(metadata):
            return cast("dict[str, Any]", to_values(metadata, "metadata", either(to_json, _by_pydantic)))
        return cast("dict[str, Any]", metadata if self._class is dict else to_json(metadata))

    def __repr__(self) -> str:
        return self._kind.__name__


def _by_pydantic(value: Any) -> Any:
    """Encode a value of one of pydantic's own types, such as a URL; a set in the same order in each process."""
    from pydantic_core import to_jsonable_python

    return sorted(value, key=repr) if isinstance(value, set | frozenset) else to_jsonable_python(value)


class Versioned(Generic[T]):
    """Metadata whose type changes over time: documents of earlier versions are upgraded when they are read.

    The version is stored in the metadata, under the key ``_version``, which is not indexed. Metadata without it has version 1.

    Args:
        metadata: the type of the current version, or its codec, as for `connect`.
        version: the current version, from 1.
        upgrade: called with a copy of the stored metadata, without the version, and its version; returns the metadata of the
            current version as values that `memory.to_json` encodes, such as an enum.

    >>> from dataclasses import dataclass
    >>> import memory
    >>> @dataclass
    ... class Ticket:
    ...     customer: str
    ...     priority: int = 3
    >>> def upgrade(old: dict[str, Any], version: int) -> dict[str, Any]:
    ...     return {"customer": old["user"]}
    >>> store = memory.connect("memory://", metadata=Versioned(Ticket, version=2, upgrade=upgrade))
    >>> with store.untyped().begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42", {"user": "ada"}))
    >>> store.conversations.get("support-42").metadata
    Ticket(customer='ada', priority=3)
    >>> store.upgrade_metadata()
    1
    >>> store.untyped().conversations.get("support-42").metadata
    {'customer': 'ada', 'priority': 3, '_version': 2}
    """

    def __init__(
        self,
        metadata: type[T] | Codec[T],
        *,
        version: int,
        upgrade: Callable[[dict[str, Any], int], dict[str, Any]],
    ) -> None:
        if type(version) is not int or version < 1:
            raise ConfigurationError(f"version must be an int from 1, not {version!r}")
        self._codec = codec_for(metadata)
        self._version = version
        self._upgrade = upgrade

    def decode(self, stored: dict[str, Any], /) -> T:
        stored = dict(stored)
        version = stored.pop(VERSION_KEY, 1)
        if type(version) is not int or not 1 <= version <= self._version:
            raise InvalidValueError(
                f"metadata.{VERSION_KEY} is {version!r:.60}, and this code reads the versions up to {self._version}"
            )
        if version < self._version:
            stored = cast("dict[str, Any]", to_values(self._upgrade(stored, version), "metadata", to_json))
        return self._codec.decode(stored)

    def encode(self, metadata: T, /) -> dict[str, Any]:
        encoded = self._codec.encode(metadata)
        if VERSION_KEY in encoded:
            raise InvalidValueError(f"metadata has the key {VERSION_KEY}, which Versioned needs for itself")
        return {**encoded, VERSION_KEY: self._version}

    def __repr__(self) -> str:
        return f"Versioned({self._codec!r}, version={self._version})"


@dataclass(frozen=True, slots=True)
class Serializer(Generic[T]):
    """Converts an application's metadata to the text that is stored, and back.

    Attributes:
        codec: the codec of the metadata.
        default: encodes values that JSON lacks, in metadata and in runs; None to refuse them.
    """

    codec: Codec[T]
    default: Default | None = None

    @property
    def is_typed(self) -> bool:
        return cast(object, self.codec) is not UNTYPED

    def dump(self, metadata: T) -> str:
        """Return the text for this metadata; raise `InvalidValueError` if it cannot be stored."""
        default = either(to_json, self.default) if self.is_typed else self.default
        try:
            encoded = self.codec.encode(metadata)
        except PersistenceError:
            raise
        except Exception as error:  # the application's
            raise InvalidValueError(f"the metadata cannot be encoded: {type(error).__name__}: {error}") from error
        return encode_metadata(encoded, default)

    def read(self, stored: dict[str, Any], conversation_id: str) -> tuple[T, str]:
        """Return the metadata for a stored dict, and the text that it is stored as from now on, which may be another one.

        Raises:
            CorruptRecordError: it does not fit the type.
        """
        try:
            metadata = self.codec.decode(stored)
            return metadata, self.dump(metadata)
        except Exception as error:  # `InvalidValueError`, or the application's
            raise CorruptRecordError(_explain(error, conversation_id), conversation_id=conversation_id) from error

    def check(self, text: str, conversation_id: str) -> None:
        """Raise `InvalidValueError` if text that is about to be stored could not be read again."""
        if self.is_typed:
            try:
                self.codec.decode(decode_metadata(text, "the metadata"))
            except Exception as error:  # as above
                raise InvalidValueError(_explain(error, conversation_id), conversation_id=conversation_id) from error


def _explain(error: Exception, conversation_id: str) -> str:
    reason = error if isinstance(error, InvalidValueError) else f"{type(error).__name__}: {error}"
    return f"the metadata of conversation {conversation_id!r} does not fit the store's type: {reason}"


def codec_for(metadata: type[T] | Codec[T] | None) -> Codec[T]:
    """Return the codec of a type, `UNTYPED` for None. An object that has ``encode`` and ``decode`` is one already.

    Raises:
        ConfigurationError: as for `Typed`.
    """
    if metadata is None:
        return cast("Codec[T]", UNTYPED)
    if hasattr(metadata, "encode") and hasattr(metadata, "decode"):
        return cast("Codec[T]", metadata)
    return Typed(metadata)
