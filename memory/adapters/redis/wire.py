"""Round trips: commands are sent together, and their answers are returned as bytes, whatever the client decodes for others.

redis-py itself repeats a command up to ten times, even if the first one may have been executed. Here a read is repeated once, if
the connection broke, and a commit never: its token says whether it was written. A round trip ends with the operation's deadline.
"""

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeAlias

from redis.exceptions import RedisError, TimeoutError  # noqa: A004

from memory.adapters.redis.connections import SHORTEST
from memory.adapters.redis.errors import LATER, LOST, code, translate
from memory.adapters.redis.records import LEFT_OVER, corrupt
from memory.errors import CommitInDoubtError, StoreUnavailableError
from memory.port.deadlines import remaining

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = Sequence[Argument]

_SHARE_OF_COMMIT: Final = 0.5
"""The share of the remaining time for the answer to a commit. In the rest, its token can tell whether it was written."""


class Script:
    """A Lua script of this package, made of several files."""

    def __init__(self, *parts: str) -> None:
        folder = files(__package__)
        self.source: Final = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
        self.sha: Final = sha1(self.source.encode()).hexdigest()  # noqa: S324  # Redis's name for the script, no secret


class LostError(StoreUnavailableError):
    """The connection broke before everything was answered."""


class RefusedError(StoreUnavailableError):
    """The server refused with an error that `errors.translate` does not know."""


class Wire:
    """Sends commands over a pool of connections to one server.

    Args:
        pool: a pool of redis-py's. (The type stubs that come with redis-om describe older ones.)
        timeout: seconds that a round trip may take if no operation sets a deadline.
        where: returns what errors call the server.
    """

    def __init__(self, pool: Any, timeout: float, where: Callable[[], object]) -> None:
        self._pool, self._timeout, self._where = pool, timeout, where

    @property
    def seconds_left(self) -> float:
        """The seconds that are left for the operation."""
        return remaining(self._timeout)

    def ask(self, *command: Argument) -> Any:
        """Return the answer to a command that may be repeated, or raise as `checked` does."""
        return self.checked(self.ask_all(command)[0])

    def ask_all(self, *commands: Command) -> list[Any]:
        """Return the answers to commands that may be repeated, in one round trip. Refusals are among them as exceptions."""
        try:
            return self._exchange(commands)
        except LostError as error:
            if isinstance(error.__cause__, TimeoutError):  # the time is up, and the server may still be working on it
                raise
        return self._exchange(commands)

    def at_once(self, *commands: Command) -> list[Any]:
        """Return the answers to commands that read the state of one moment. The first argument of each is its key."""
        # The first refusal says more than EXEC's, which follows from it.
        *_, answers = map(self.checked, self.ask_all(("MULTI",), *commands, ("EXEC",)))
        return [self.checked(answer, command[1]) for command, answer in zip(commands, answers, strict=True)]

    def read(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return the answer of a script that may be repeated.

        Raises:
            CorruptRecordError: the script met a key that it cannot read; nothing was written.
        """
        return self._run(lambda command: self.ask_all(command)[0], script, keys, arguments)

    def commit(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return the answer of a script that writes. It runs at most once.

        Raises:
            CommitInDoubtError: the answer was lost, or is an error that does not tell whether anything was written.
            CorruptRecordError: as `read`.
        """
        try:
            return self._run(lambda command: self._exchange((command,), _SHARE_OF_COMMIT)[0], script, keys, arguments)
        except (LostError, RefusedError) as error:
            raise CommitInDoubtError(f"{error}; whether anything was written is unknown") from error.__cause__

    def checked(self, answer: Any, key: Argument | None = None) -> Any:
        """Return an answer of `ask_all`, or raise our error for a refusal. ``key`` is the key that was asked for, if any."""
        if isinstance(answer, Exception):
            where = key or self._where()
            raise translate(answer, where) or RefusedError(f"{where}: the server refused: {answer}") from answer
        return answer

    def _run(
        self, ask: Callable[[Command], Any], script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        answer = ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        if isinstance(answer, RedisError) and code(answer) == "NOSCRIPT":  # the first time, or the scripts were flushed
            answer = ask(("EVAL", script.source, len(keys), *keys, *arguments))
        answer = self.checked(answer)
        if isinstance(answer, list) and answer[:1] == [b"corrupt"]:
            raise corrupt(answer[1].decode(errors="replace"), *([LEFT_OVER] if answer[2:] else []))
        return answer

    def _exchange(self, commands: Sequence[Command], share: float = 1.0) -> list[Any]:
        if not self.seconds_left:
            raise StoreUnavailableError(
                f"{self._where()}: it took longer than {self._timeout:g} s; nothing was written"
            )
        try:
            connection = self._pool.get_connection()
        except (RedisError, OSError) as error:
            return [self.checked(error)]
        seconds = max(share * self.seconds_left, SHORTEST)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [self._answer(connection, seconds) for _ in commands]
            if any(isinstance(answer, Exception) and code(answer) in LATER for answer in answers):
                connection.disconnect()  # another server may have taken over under this name
        except LOST as error:
            connection.disconnect()
            raise LostError(f"{self._where()}: the answer was lost: {error}") from error
        except BaseException:
            connection.disconnect()  # nobody may take answers that are still unread for their own
            raise
        finally:
            self._pool.release(connection)
        return answers

    def _answer(self, connection: Any, seconds: float) -> Any:
        try:
            return connection.read_response(disable_decoding=True, timeout=seconds)
        except RedisError as error:
            # redis-py counts some answers, such as LOADING, among the errors of a connection.
            if isinstance(error, LOST) and getattr(error, "status_code", None) is None:
                raise
            return error
