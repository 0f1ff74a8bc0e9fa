"""Round trips: commands are sent as one pipeline, and replies are returned as bytes, regardless of the client's decoding.

redis-py retries a command up to ten times, even if the first attempt may have been executed. Here a read is retried once, if the
connection broke, and a commit never: its token shows whether it was written. A round trip ends at the operation's deadline.
"""

from collections.abc import Callable, Sequence
from functools import partial
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
"""The share of the remaining time to wait for the reply to a commit. The rest allows to look up the token if it is lost."""


class Script:
    """A Lua script of this package, concatenated from several files."""

    def __init__(self, *parts: str) -> None:
        folder = files(__package__)
        self.source: Final = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
        self.sha: Final = sha1(self.source.encode()).hexdigest()  # noqa: S324  # Redis identifies scripts by SHA-1


class UnclearError(StoreUnavailableError):
    """No reply shows whether the server executed a command: it was lost, or is an error that `errors.translate` does not know."""


class Wire:
    """Sends commands over redis-py's pool of connections. ``where`` returns the server's name for error messages."""

    def __init__(self, pool: Any, timeout: float, where: Callable[[], object]) -> None:
        self._pool, self._timeout, self.where = pool, timeout, where

    @property
    def seconds_left(self) -> float:
        """The seconds until the operation's deadline."""
        return remaining(self._timeout)

    def ask(self, *command: Argument) -> Any:
        """Return the reply to an idempotent command, or raise an error like `checked`."""
        return self.checked(self.ask_all(command)[0])

    def ask_all(self, *commands: Command) -> list[Any]:
        """Return the replies to idempotent commands, sent in one round trip. Error replies are returned as exceptions."""
        try:
            return self._exchange(*commands)
        except UnclearError as error:
            if isinstance(error.__cause__, TimeoutError):  # no time is left, and the server may still be busy
                raise
        return self._exchange(*commands)

    def transaction(self, *commands: Command) -> list[Any]:
        """Return the replies to commands that run in one transaction. The first argument of each command is its key."""
        # `checked` raises the first error reply: it is more specific than EXEC's, which it causes.
        *_, answers = map(self.checked, self.ask_all(("MULTI",), *commands, ("EXEC",)))
        return [self.checked(answer, command[1]) for command, answer in zip(commands, answers, strict=True)]

    def read(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return the reply of an idempotent script; raise `CorruptRecordError` for a key that it cannot read."""
        return self._run(self.ask_all, script, keys, arguments)

    def commit(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script that runs at most once; raise `CommitInDoubtError` if no reply shows what it wrote."""
        try:
            return self._run(partial(self._exchange, share=_SHARE_OF_COMMIT), script, keys, arguments)
        except UnclearError as error:
            raise CommitInDoubtError(f"{error}; the commit may or may not be written") from error.__cause__

    def checked(self, answer: Any, key: Argument | None = None) -> Any:
        """Return a reply of `ask_all`, or raise our error for an error reply. ``key`` is the command's key, if it has one."""
        if isinstance(answer, Exception):
            where = key or self.where()
            raise translate(answer, where) or UnclearError(f"{where}: the server replied: {answer}") from answer
        return answer

    def _run(
        self, ask: Callable[[Command], list[Any]], script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        (answer,) = ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        if isinstance(answer, RedisError) and code(answer) == "NOSCRIPT":  # not loaded yet, or flushed
            (answer,) = ask(("EVAL", script.source, len(keys), *keys, *arguments))
        answer = self.checked(answer)
        if isinstance(answer, list) and answer[:1] == [b"corrupt"]:
            raise corrupt(answer[1].decode(errors="replace"), *([LEFT_OVER] if answer[2:] else []))
        return answer

    def _exchange(self, *commands: Command, share: float = 1.0) -> list[Any]:
        if not self.seconds_left:
            raise StoreUnavailableError(
                f"{self.where()}: the operation took longer than {self._timeout:g} s; nothing was written"
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
                connection.disconnect()  # another server may have taken over this name
        except BaseException as error:
            connection.disconnect()  # otherwise the next command would read the replies that are still unread
            if isinstance(error, LOST):
                raise UnclearError(f"{self.where()}: the reply was lost: {error}") from error
            raise
        finally:
            self._pool.release(connection)
        return answers

    def _answer(self, connection: Any, seconds: float) -> Any:
        try:
            return connection.read_response(disable_decoding=True, timeout=seconds)
        except RedisError as error:
            # redis-py derives some error replies, such as LOADING, from its errors of connections.
            if isinstance(error, LOST) and getattr(error, "status_code", None) is None:
                raise
            return error
