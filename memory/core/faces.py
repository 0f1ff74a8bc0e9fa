"""One core for two faces: an operation is a generator that yields calls of the port, and a face performs the calls.

The classes of this package define each operation once, with its signature and its documentation. In a class that also derives
from `Synchronous`, an operation returns its result. `memory.aio` has the other face, in which it returns a coroutine.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from functools import partial, update_wrapper, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast, overload

if TYPE_CHECKING:
    from types import FrameType

_warned: set[tuple[str, int]] = set()

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.01, 1.0  # seconds

Call: TypeAlias = Callable[[], Any]
"""A call of the port with its arguments bound. It may block."""

Steps: TypeAlias = Generator[Call, Any, T]
"""A running operation: it yields calls, is sent their results, and returns its own result."""


class Sleep:
    """The call that waits, which a face may do in its own way."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> None:
        time.sleep(self.seconds)


def delays(times: int) -> list[float]:
    """Return the seconds to wait before each of so many retries: up to 10 ms at first, doubling up to 1 s, with jitter."""
    import random  # which takes a while: only if something is retried

    return [random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))) for n in range(times)]  # noqa: S311  # jitter needs no secure random numbers


class Write(partial[T]):
    """A call that writes. An asynchronous face awaits it, and the rest of its operation, to the end, even if it is cancelled.

    The end is the next `Checkpoint`, if the operation has any.
    """


class Checkpoint:
    """The call that does nothing, at which a long operation may be cancelled: what it has written so far is complete."""

    def __call__(self) -> None:
        pass


class Notify(partial[T]):
    """A call of the application's function. It may return an awaitable for an asynchronous face to await."""


class Item(NamedTuple, Generic[T]):
    """What an iteration yields for its caller, among its calls."""

    value: T


Items: TypeAlias = Generator[Call | Item[T], Any, None]
"""A running iteration."""


class Synchronous:
    """The face whose operations return their results."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _make_methods(cls, lambda member: member.synchronous())


class Asynchronous:
    """The face whose operations return coroutines.

    `memory.aio` has its two methods: ``_perform`` takes the steps of an operation, and ``_iterate`` those of an iteration.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _make_methods(cls, lambda member: member.asynchronous())


class _Member(ABC, Generic[P, T]):
    """A method, of which each face makes its own when a class is defined."""

    def __init__(self, function: Callable[Concatenate[Any, P], Any]) -> None:
        self._function = function
        update_wrapper(cast(Any, self), function)

    @abstractmethod
    def synchronous(self) -> Callable[..., Any]:
        """Return the method of the synchronous face."""

    @abstractmethod
    def asynchronous(self) -> Callable[..., Any]:
        """Return the method of the asynchronous face."""


def _make_methods(cls: type, method_of: Callable[[_Member[..., Any]], Callable[..., Any]]) -> None:
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, member in list(vars(base).items()):
            if isinstance(member, _Member) and name not in seen:
                setattr(cls, name, method_of(member))
            seen.add(name)


class operation(_Member[P, T]):  # noqa: N801  # a decorator
    """Make a method of a generator function: it performs the calls, and returns the result, or a coroutine that returns it."""

    if TYPE_CHECKING:

        def __init__(self, function: Callable[Concatenate[Any, P], Steps[T]]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
        @overload
        def __get__(self, instance: Synchronous, owner: type) -> Callable[P, T]: ...
        @overload
        def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
        def __get__(self, instance: Any, owner: type) -> Any: ...

    def synchronous(self) -> Callable[..., T]:
        function = self._function

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
            result: T = perform(function(self, *args, **kwargs))
            return result

        return method

    def asynchronous(self) -> Callable[..., Coroutine[Any, Any, T]]:
        function = self._function

        @wraps(function)
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
            result: T = await self._perform(function(self, *args, **kwargs))
            return result

        return method


class iteration(_Member[P, T]):  # noqa: N801  # a decorator
    """Make a method of a generator function that yields calls and `Item`s: it returns an iterator of the items."""

    if TYPE_CHECKING:

        def __init__(self, function: Callable[Concatenate[Any, P], Items[T]]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], Iterator[T]]: ...
        @overload
        def __get__(self, instance: Synchronous, owner: type) -> Callable[P, Iterator[T]]: ...
        @overload
        def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
        def __get__(self, instance: Any, owner: type) -> Any: ...

    def synchronous(self) -> Callable[..., Iterator[T]]:
        function = self._function

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[T]:
            return iterate(function(self, *args, **kwargs))

        return method

    def asynchronous(self) -> Callable[..., AsyncGenerator[T, None]]:
        function = self._function

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> AsyncGenerator[T, None]:
            return self._iterate(function(self, *args, **kwargs))  # type: ignore[no-any-return]

        return method


class immediate(_Member[P, T]):  # noqa: N801  # a decorator
    """Make a method of a function that makes no calls. In the asynchronous face it is awaited nevertheless, as all others are.

    It has its effect when it is called, so that a forgotten ``await`` loses nothing.
    """

    if TYPE_CHECKING:

        def __init__(self, function: Callable[Concatenate[Any, P], T]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
        @overload
        def __get__(self, instance: Synchronous, owner: type) -> Callable[P, T]: ...
        @overload
        def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
        def __get__(self, instance: Any, owner: type) -> Any: ...

    def synchronous(self) -> Callable[..., T]:
        return self._function

    def asynchronous(self) -> Callable[..., Coroutine[Any, Any, T]]:
        function = self._function

        async def returning(result: T) -> T:
            return result

        returning.__qualname__ = function.__qualname__  # which the warning about a coroutine that nobody awaits names

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]:
            return returning(function(self, *args, **kwargs))

        return method


def perform(steps: Steps[T]) -> T:
    """Perform the calls of an operation, and return its result."""
    if (events := sys.modules.get("asyncio.events")) is not None and events._get_running_loop() is not None:  # noqa: SLF001
        _warn_once()
    try:
        call = next(steps)
        while True:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # the operation handles it, or raises it again
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _warn_once() -> None:
    """Warn about the line of the application's that blocks the event loop, unless it was warned about before."""
    if (greenlet := sys.modules.get("greenlet")) is not None and greenlet.getcurrent().parent is not None:
        return  # inside of SQLAlchemy's `run_sync`, in which a call awaits the database
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "memory":
        frame = frame.f_back
    if frame is not None and (place := (frame.f_code.co_filename, frame.f_lineno)) not in _warned:
        _warned.add(place)
        import logging  # which takes a while

        logging.getLogger("memory.aio").warning(
            "%s:%d blocks the event loop: open the store by memory.aio.connect(), and await this call", *place
        )


def iterate(steps: Items[T]) -> Iterator[T]:
    """Yield the items of an iteration, and perform the calls between them."""
    if (events := sys.modules.get("asyncio.events")) is not None and events._get_running_loop() is not None:  # noqa: SLF001
        _warn_once()
    try:
        step = next(steps)
        while True:
            if isinstance(step, Item):
                yield step.value
                step = next(steps)
                continue
            try:
                result = step()
            except BaseException as error:  # noqa: BLE001  # as in `perform`
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration:
        return
    finally:
        steps.close()
