"""The machine: how many cores this process may use."""

import ctypes
import os
import signal
import sys
from contextlib import suppress

# Set in the process that works for `featcache extract`: the name of a file in which it
# writes down where its ledger of images in work lies.
CHILD = "FEATCACHE_CHILD"

_PR_SET_PDEATHSIG = 1  # of Linux' prctl(2)


def cores() -> int:
    """Return how many cores this process may use.

    Returns
    -------
    int
        At least 1; what a container or ``taskset`` allows, where the system tells.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have this process end when the thread that started it is killed, on Linux.

    Parameters
    ----------
    number : int
        The signal that ends it.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
