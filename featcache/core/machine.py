"""The machine: how many cores this process may use."""

import os


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
