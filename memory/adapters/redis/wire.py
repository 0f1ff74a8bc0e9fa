"""Round trips: commands go out together, and their answers come back as bytes, whatever the client decodes for others.

redis-py's own way of executing a command repeats it, by default ten times, also when the first may have been done. Here what
only reads is repeated once, if the connection broke, and a commit never: its token says whether it was written.

Each round trip ends with the operation's deadline (`memory.port.deadlines`).
"""

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from redis.exceptions import RedisError, TimeoutError  # noqa: A004

from memory.adapters.redis.errors import ELSEWHERE, LOST, code, translate, unreachable
from memory.adapters.redis.records import LEFT_OVER, corrupt
from memory.errors import CommitInDoubtError, PersistenceError, StoreUnavailableError
from memory.port.deadlines import remaining

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = Sequence[Argument]


T = TypeVar("T")

SHORTEST: Final = 0.001
"""Seconds: no time at all would make a socket one that does not wait, which is something else."""


_SHARE_OF_COMMIT: Final = 0.5
"""Of the time that is left, for the answer to a commit: in the rest its token can tell whether it was written."""


class Connection(Protocol):
    """What is used of redis-py's connections. The stubs that come with redis-om describe an older one."""

    def pack_commands(self, commands: Sequence[Command]) -> Any: ...
    def send_packed_command(self, command: Any) -> None: ...
    def read_response(self, *, disable_decoding: bool) -> Any: ...
    def disconnect(self) -> None: ...
    def update_current_socket_timeout(self, relaxed_timeout: float) -> None: ...


class Pool(Protocol):
    """What is used of redis-py's pools of connections."""

    connection_kwargs: dict[str, Any]

    def get_connection(self) -> Connection: ...
    def release(self, connection: Connection) -> None: ...
    def disconnect(self) -> None: ...


class Client(Protocol):
    """What is used of redis-py's client: where it gets its connections."""

    @property
    def connection_pool(self) -> Any: ...


class Script:
    """A Lua script of this package: its parts, one after the other."""

    def __init__(self, *parts: str) -> None:
        folder = files(__package__)
        self.source: Final = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
        self.sha: Final = sha1(self.source.encode()).hexdigest()  # noqa: S324  # Redis's name for it, no secret


class LostError(StoreUnavailableError):
    """The connection broke after everything was sent, and before everything was answered."""


class RefusedError(StoreUnavailableError):
    """The server refused with an error that `errors.translate` does not know."""

    def __init__(self, where: object, refusal: Exception) -> None:
        super().__init__(f"{where}: the server refused: {refusal}")
        self.refusal: Final = refusal


class Wire:
    """A pool of connections to one server.

    Args:
        pool: the pool.
        timeout: seconds that a round trip may take where no operation sets a deadline.
        where: returns what to call the server in errors.
    """

    def __init__(self, pool: Pool, timeout: float, where: Callable[[], object]) -> None:
        self.pool: Final = pool
        self._timeout = timeout
        self._where = where

    @property
    def seconds_left(self) -> float:
        """The seconds that are left for the operation."""
        return remaining(self._timeout)

    def ask(self, *command: Argument) -> Any:
        """Return the answer to a command that only reads, or may be done twice, or raise as `checked`."""
        return self.checked(self.ask_all(command)[0])

    def ask_all(self, *commands: Command) -> list[Any]:
        """Return the answers to such commands, in one round trip; what the server refused is among them as an exception."""
        return self._twice(lambda: self._exchange(commands))

    def read(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return a script's answer; it may be run twice.

        Raises:
            CorruptRecordError: the script met a key that it cannot read; nothing was written.
            RefusedError: the server refused for a reason unknown here, as in `checked`.
        """
        return self._twice(lambda: self._run(script, keys, arguments))

    def commit(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return the answer of a script that writes; it is run once at most.

        Raises:
            CommitInDoubtError: the answer was lost, or is an error that does not tell whether anything was written.
            CorruptRecordError: as `read`.
        """
        try:
            return self._run(script, keys, arguments, _SHARE_OF_COMMIT)
        except LostError as error:
            raise CommitInDoubtError(f"{self._where()}: the answer to a commit was lost") from error.__cause__
        except RefusedError as error:
            raise CommitInDoubtError(f"{error}; whether anything was written is unknown") from error.refusal

    def checked(self, answer: Any, key: str | None = None) -> Any:
        """Return an answer, or raise what it means if the server refused.

        Args:
            answer: one of `ask_all`.
            key: the key that was asked for, if it was one of ours.

        Raises:
            PersistenceError: as `errors.translate` says, else a `RefusedError`.
        """
        if isinstance(answer, Exception):
            where = key or self._where()
            raise translate(answer, where) or RefusedError(where, answer) from answer
        return answer

    def _twice(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except LostError as error:
            if isinstance(error.__cause__, TimeoutError):  # so the time is up, and the server may still be at it
                raise
        return ask()

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], share: float = 1.0) -> Any:
        (answer,) = self._exchange((("EVALSHA", script.sha, len(keys), *keys, *arguments),), share)
        if isinstance(answer, RedisError) and code(answer) == "NOSCRIPT":  # the server's first time, or it was flushed
            (answer,) = self._exchange((("EVAL", script.source, len(keys), *keys, *arguments),), share)
        answer = self.checked(answer)
        if isinstance(answer, list) and answer[:1] == [b"corrupt"]:
            raise corrupt(answer[1].decode(errors="replace"), *([LEFT_OVER] if answer[2:] else []))
        return answer

    def _exchange(self, commands: Sequence[Command], share: float = 1.0) -> list[Any]:
        try:
            connection = self.pool.get_connection()
        except (RedisError, OSError) as error:
            raise self._unreachable(error) from error
        try:
            packed = connection.pack_commands(commands)
            self._limit(connection, share)
            try:
                connection.send_packed_command(packed)
            except LOST as error:  # the last command did not leave whole, so no script did
                raise StoreUnavailableError(
                    f"{self._where()}: the server could not be reached; nothing was written ({error})"
                ) from error
            answers = [self._answer(connection) for _ in commands]
            if any(isinstance(answer, Exception) and code(answer) in ELSEWHERE for answer in answers):
                connection.disconnect()  # another server may have taken over under this name
        except BaseException:
            connection.disconnect()  # answers that nobody has read must not be taken for others
            raise
        finally:
            connection.update_current_socket_timeout(-1)  # what the client has it at
            self.pool.release(connection)
        return answers

    def _limit(self, connection: Connection, share: float) -> None:
        seconds = self.seconds_left
        if not seconds:
            raise StoreUnavailableError(f"{self._where()}: it {self._took}; nothing was written")
        connection.update_current_socket_timeout(max(share * seconds, SHORTEST))

    @property
    def _took(self) -> str:
        return f"took longer than {self._timeout:g} s"

    def _answer(self, connection: Connection) -> Any:
        try:
            return connection.read_response(disable_decoding=True)
        except LOST as error:
            if code(error) == "LOADING":
                return error
            why = f"it {self._took}" if isinstance(error, TimeoutError) else f"the connection broke ({error})"
            raise LostError(f"{self._where()}: the answer did not come: {why}") from error
        except RedisError as error:
            return error

    def _unreachable(self, error: Exception) -> PersistenceError:
        if not self.seconds_left:
            return StoreUnavailableError(f"{self._where()}: it {self._took}; nothing was written ({error})")
        return unreachable(error, self._where())
