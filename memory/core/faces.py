"""One core for two faces: an operation is a generator that yields calls of the port, and a face performs the calls.

The classes of this package define each operation once, with its signature and its documentation. In a class that also derives
from `Synchronous`, an operation returns its result. `memory.aio` has the other face, in which it returns an awaitable.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial, update_wrapper, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

P = ParamSpec("P")
T = TypeVar("T")

Call: TypeAlias = Callable[[], Any]
"""A call of the port with its arguments bound. It may block."""

Steps: TypeAlias = Generator[Call, Any, T]
"""A running operation: it yields calls, is sent their results, and returns its own result."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """The call that waits, which a face may do in its own way."""

    seconds: float

    def __call__(self) -> None:
        time.sleep(self.seconds)


class Write(partial[T]):
    """A call that writes. An asynchronous face awaits it, and the rest of its operation, to the end, even if it is cancelled."""


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """What an iteration yields for its caller, among its calls."""

    value: T


Items: TypeAlias = Generator[Call | Item[T], Any, None]
"""A running iteration."""


class Synchronous:
    """The face whose operations return their results."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Put plain methods in the place of the decorators, which saves a microsecond a call."""
        super().__init_subclass__()
        for base in cls.__mro__:
            for name, member in vars(base).items():
                if isinstance(member, operation | iteration | immediate) and name not in vars(cls):
                    setattr(cls, name, member.synchronous())


class Asynchronous:
    """The face whose operations return awaitables. `memory.aio` has the three methods that make them.

    ``_perform`` takes the steps of an operation, ``_iterate`` those of an iteration, and ``_immediately`` a function.
    """

    __slots__ = ()


class operation(Generic[P, T]):  # noqa: N801  # a decorator
    """Make a method of a generator function: it performs the calls, and returns the result or an awaitable of it."""

    def __init__(self, function: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._function = function
        update_wrapper(cast(Any, self), function)

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
    @overload
    def __get__(self, instance: Synchronous, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        function, perform = self._function, instance._perform  # noqa: SLF001  # the faces' side of this decorator
        return lambda *args, **kwargs: perform(function(instance, *args, **kwargs))

    def synchronous(self) -> Callable[..., T]:
        """Return the method of the synchronous face."""
        function = self._function

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> T:
            return perform(function(self, *args, **kwargs))

        return method


class iteration(Generic[P, T]):  # noqa: N801  # a decorator
    """Make a method of a generator function that yields calls and `Item`s: it returns an iterator of the items."""

    def __init__(self, function: Callable[Concatenate[Any, P], Items[T]]) -> None:
        self._function = function
        update_wrapper(cast(Any, self), function)

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], Iterator[T]]: ...
    @overload
    def __get__(self, instance: Synchronous, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        function, iterate = self._function, instance._iterate  # noqa: SLF001
        return lambda *args, **kwargs: iterate(function(instance, *args, **kwargs))

    def synchronous(self) -> Callable[..., Iterator[T]]:
        """Return the method of the synchronous face."""
        function = self._function

        @wraps(function)
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[T]:
            return iterate(function(self, *args, **kwargs))

        return method


class immediate(Generic[P, T]):  # noqa: N801  # a decorator
    """Make a method of a function that makes no calls. In the asynchronous face it is awaited nevertheless, as all others are."""

    def __init__(self, function: Callable[Concatenate[Any, P], T]) -> None:
        self._function = function
        update_wrapper(cast(Any, self), function)

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
    @overload
    def __get__(self, instance: Synchronous, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Asynchronous, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        function, immediately = self._function, instance._immediately  # noqa: SLF001
        return lambda *args, **kwargs: immediately(partial(function, instance, *args, **kwargs))

    def synchronous(self) -> Callable[..., T]:
        """Return the method of the synchronous face: the function itself."""
        return self._function


def perform(steps: Steps[T]) -> T:
    """Perform the calls of an operation, and return its result."""
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


def iterate(steps: Items[T]) -> Iterator[T]:
    """Yield the items of an iteration, and perform the calls between them."""
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
