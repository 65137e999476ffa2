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
        How much is kept, by weight; two things whatever they weigh.
    weigh : callable, optional
        From a thing to its weight; 1 each without it.
    """

    def __init__(self, most: int, weigh: Callable[[Any], int] = lambda _: 1) -> None:
        self._most, self._weigh = most, weigh
        self._held: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._weights: dict[Hashable, int] = {}
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
        if first:
            try:
                found = read()
            except BaseException as error:
                with self._lock:
                    self._held.pop(key, None)
                future.set_exception(error)
            else:
                self._keep(key, self._weigh(found))
                future.set_result(found)
        return future.result()

    def _keep(self, key: Hashable, weight: int) -> None:
        with self._lock:
            if key not in self._held:  # all was forgotten meanwhile
                return
            self._weights[key] = weight
            # What is still being read has no weight yet, and stays.
            for old in [key for key in self._held if key in self._weights][:-2]:
                if sum(self._weights.values()) <= self._most:
                    break
                del self._held[old], self._weights[old]

    def clear(self) -> None:
        """Forget all: what lies there may be another now."""
        with self._lock:
            self._held.clear()
            self._weights.clear()
