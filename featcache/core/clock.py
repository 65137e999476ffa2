"""A clock for work in stages: which of them took the threads' time."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Adds up seconds per stage; many threads may report to it at once.

    Parameters
    ----------
    *stages : str
        Names, in the order of the work; others come behind.
    """

    def __init__(self, *stages: str) -> None:
        self._seconds = dict.fromkeys(stages, 0.0)
        self._busy: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside; stages do not nest.

        Parameters
        ----------
        name : str
            Of the stage.

        Yields
        ------
        None
            An error inside counts as time, too.
        """
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Count what this thread computes inside: its processor time.

        Yields
        ------
        None
            What it computes, not what it waits, is the share of a core that is busy.
        """
        began = time.thread_time()
        name = threading.current_thread().name
        try:
            yield
        finally:
            seconds = time.thread_time() - began
            with self._lock:
                self._busy[name] = self._busy.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Return the time spent in each stage so far, all threads together.

        Returns
        -------
        dict of str to float
            Seconds, in the order of the work.
        """
        with self._lock:
            return dict(self._seconds)

    def busy(self) -> dict[str, float]:
        """Return the processor time of each worker that has ended.

        Returns
        -------
        dict of str to float
            Seconds by the thread's name.
        """
        with self._lock:
            return dict(self._busy)

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return what was measured since the last call, and begin anew.

        Returns
        -------
        dict of str to float, dict of str to float
            Seconds of each stage, and processor time of each worker.
        """
        with self._lock:
            taken = self._seconds, self._busy
            self._seconds, self._busy = {}, {}
        return taken

    def add(self, seconds: Mapping[str, float], busy: Mapping[str, float]) -> None:
        """Count what another clock has measured.

        Parameters
        ----------
        seconds : mapping of str to float
            Of each stage.
        busy : mapping of str to float
            Processor time of each worker; its name must be no other's.
        """
        with self._lock:
            for own, others in ((self._seconds, seconds), (self._busy, busy)):
                for name, value in others.items():
                    own[name] = own.get(name, 0.0) + value
