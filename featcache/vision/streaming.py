"""Streaming: blocks through threads, results in order, no more than a few in memory."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Generic, Self, TypeVar

from featcache.core.blocks import Block
from featcache.vision.pipeline import one_core_each

_AHEAD = 2  # blocks for each thread that are in work or wait to be taken
_LOOK = 0.2  # seconds between two looks whether all is well
_PATIENCE = 30.0  # seconds in all for threads to stop, when one of them cannot

Result = TypeVar("Result")
Work = Callable[[Block, Callable[[], None]], Result]


class _StoppedError(Exception):
    """Nobody wants the results any more."""


def stream_blocks(
    blocks: Iterable[Block],
    work: Work[Result],
    workers: int,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Work through blocks on threads, as fast as the results are taken.

    As `featcache.vision.pipeline.run_blocks`, for work without an end or with results
    too many to hold: at most twice as many blocks as threads are ahead of the caller.
    Meanwhile torch runs on one core in each thread.

    Parameters
    ----------
    blocks : iterable of Block
        Taken one by one.
    work : callable
        Called with a block and an ``alive`` function that raises once the work is to
        stop.
    workers : int
        Number of threads.
    watch : callable
        Called several times a second while the caller waits; raises to give up.

    Yields
    ------
    object
        What ``work`` returns, in the order of the blocks.

    Raises
    ------
    Exception
        What ``work`` or ``watch`` raises, after the threads have stopped.
    """
    waiting: deque[Future[Result]] = deque()
    with one_core_each(), _Threads(work, workers) as threads:
        for block in blocks:
            waiting.append(threads.submit(block))
            if len(waiting) == _AHEAD * workers:
                yield _taken(waiting.popleft(), watch)
        while waiting:
            yield _taken(waiting.popleft(), watch)


def _taken(future: Future[Result], watch: Callable[[], None]) -> Result:
    while not wait([future], _LOOK).done:
        watch()
    return future.result()


class _Threads(Generic[Result]):
    """Threads that work on blocks as they are submitted, until the context ends."""

    def __init__(self, work: Work[Result], count: int) -> None:
        self._work, self._stop = work, threading.Event()
        self._tasks: queue.SimpleQueue[tuple[Block, Future[Result]] | None]
        self._tasks = queue.SimpleQueue()
        # Daemons: a decoder that never returns must not keep the process from ending.
        run = self._run
        self._all = [threading.Thread(target=run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._all:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for _thread in self._all:
            self._tasks.put(None)
        for thread in self._all:
            thread.join(_PATIENCE / len(self._all))

    def submit(self, block: Block) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((block, future))
        return future

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            block, future = task
            try:
                self._alive()
                future.set_result(self._work(block, self._alive))
            except BaseException as error:
                future.set_exception(error)

    def _alive(self) -> None:
        if self._stop.is_set():
            raise _StoppedError
