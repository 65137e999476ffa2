"""Threads: work on images, some of it ahead of whoever takes the results.

What takes long, decoding and resizing, lets go of the interpreter, so plain threads
keep the network fed; nothing is copied between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from featcache.core.machine import cores

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """Threads that work ahead of whoever takes their results; ``with`` ends them.

    Parameters
    ----------
    workers : int
        How many; 0 means one per core that this process may use.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or cores()
        self._pool = ThreadPoolExecutor(self.workers, "featcache-images")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ordered(
        self, work: Callable[[T], R], items: Iterable[T], ahead: int = 0
    ) -> Generator[R, None, None]:
        """Work on items, some ahead, and give the results in the items' order.

        Parameters
        ----------
        work : callable
            From one item to its result.
        items : iterable
            Taken only as fast as results are.
        ahead : int
            How many items are begun before their results are asked for; at least two
            per thread, so that none is idle.

        Yields
        ------
        object
            One result per item; what ``work`` raises is raised in its place.
        """
        ahead = max(ahead, 2 * self.workers)
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
