"""An event loop and a thread pool in virtual time: a thousand seconds pass in a millisecond.

When nothing is ready the clock jumps to the next timer. When there is no timer either, whoever waits would
wait for ever, and the test fails with `Stuck` instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec

from maru.engine import batcher, manager

P = ParamSpec("P")


class Stuck(AssertionError):
    """Nothing is running, nothing is timed, and the test is still waiting."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time passes only while nothing can run, or inside `spend`."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._now = 1000.0
        self._spent = 0.0
        self._default_pool: VirtualPool | None = None
        self.on_idle: Callable[[], None] | None = None
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def time(self) -> float:
        return self._now + self._spent

    def spend(self, seconds: float) -> None:
        """Called from a function run in a `VirtualPool`: it takes that much longer."""
        self._spent += seconds

    def call(self, work: Callable[[], Any]) -> tuple[float, Any, BaseException | None]:
        """Run `work` now; how long it takes, and what it gives or raises when that time is over."""
        assert not self._spent
        try:
            return_value, error = work(), None
        except BaseException as raised:
            return_value, error = None, raised
        took, self._spent = self._spent, 0.0
        return took, return_value, error

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout != 0:
            if self.on_idle is not None:
                self.on_idle()
            if not self._scheduled:  # type: ignore[attr-defined]
                raise Stuck("nothing runs and nothing is timed")
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        return ()

    def _process_events(self, _: object) -> None: ...

    def _write_to_self(self) -> None: ...

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        if executor is None:
            if self._default_pool is None:
                self._default_pool = VirtualPool(32)
            executor = self._default_pool
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)


class VirtualPool:
    """Takes the place of ThreadPoolExecutor: as many functions at once as there are workers, each as long as
    it `spend`s. What a function does happens when it begins; what it returns is there when it ends."""

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self._free = max_workers or 8
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._shut = False

    def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._queue.append((future, functools.partial(func, *args, **kwargs)))
        self._next()
        return future

    def _next(self) -> None:
        if self._free and self._queue:
            self._free -= 1
            self._loop.call_soon(self._run, *self._queue.popleft())

    def _run(self, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._end(None)
            return
        took, result, error = self._loop.call(work)
        if error is not None:
            self._loop.call_later(took, self._end, functools.partial(future.set_exception, error))
        else:
            self._loop.call_later(took, self._end, functools.partial(future.set_result, result))

    def _end(self, land: Callable[[], None] | None) -> None:
        self._free += 1
        self._next()
        if land is not None:
            land()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        assert not wait, "the event loop would be blocked until the last thread is done"
        self._shut = True


def run_virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on a virtual loop, with the engine's thread pools virtual too. Nothing may be left over."""
    loop = VirtualLoop()
    modules = [vars(module) for module in (batcher, manager)]
    for module in modules:
        module["ThreadPoolExecutor"] = VirtualPool
    try:
        task = loop.create_task(main())
        loop.run_until_complete(task)
        left = [each for each in asyncio.all_tasks(loop) if not each.done()]
        assert not left, f"tasks left over: {left}"
        assert not loop.complaints, loop.complaints
    finally:
        for module in modules:
            module["ThreadPoolExecutor"] = ThreadPoolExecutor
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes an `async def test_…` a test that pytest runs, in virtual time."""

    @functools.wraps(test)
    def plain(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtually(functools.partial(test, *args, **kwargs))

    return plain


def loop_of() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
