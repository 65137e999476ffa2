"""What several threads want at the same time, read once and kept for a while."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Shared:
    """What was last read; threads that want the same read it once.

    Parameters
    ----------
    most : int
        How much is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], Result]) -> Result:
        """Return what belongs to a key.

        Parameters
        ----------
        key : hashable
            What is wanted.
        read : callable
            Called where nobody has it; other threads wait.

        Returns
        -------
        object
            What ``read`` returned here or in another thread.

        Raises
        ------
        Exception
            What ``read`` raised, which is not kept.
        """
        with self._lock:
            first = key not in self._held
            future: Future[Result] = self._held.setdefault(key, Future())
            self._held.move_to_end(key)
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        if first:
            try:
                future.set_result(read())
            except BaseException as error:
                with self._lock:
                    self._held.pop(key, None)
                future.set_exception(error)
        return future.result()

    def clear(self) -> None:
        """Forget all: what lies there may be another now."""
        with self._lock:
            self._held.clear()
