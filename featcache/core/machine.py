"""The machine: how many cores this process may use."""

import os

# Set in the process that works for `featcache extract`: the name of a file in which it
# writes down where its ledger of images in work lies.
CHILD = "FEATCACHE_CHILD"


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
