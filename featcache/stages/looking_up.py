"""Looking up: what earlier caches know by the digest of an image's bytes."""

import hashlib
from collections.abc import Callable

import numpy as np

from featcache.core.clock import Clock
from featcache.core.status import Status, UnusableImageError
from featcache.core.viewed import adopt
from featcache.stages.tasks import Work
from featcache.vision.decode import read_file


def look_up(work: Work, clock: Clock, alive: Callable[[], None]) -> None:
    """Fill in what earlier caches know, where other processes do the rest.

    Files are read here, so that no worker needs a table of all digests. What is new
    is read again by a worker, from the system's cache of files.

    Parameters
    ----------
    work : Work
        Its pending rows are filled in place.
    clock : Clock
        Hears how long reading takes.
    alive : callable
        Raises when the work is to stop.
    """
    if work.reuse.empty:
        return
    for row in np.flatnonzero(work.rows.status == Status.PENDING).tolist():
        alive()
        with clock.stage("read"):
            try:
                digest = hashlib.sha256(read_file(work.files[row])).digest()
            except UnusableImageError:
                continue  # a worker will say so
        known = work.reuse.lookup(digest)
        count = int(work.rows.counts[row])
        if known is not None and adopt(work.rows.features[row], known, count):
            work.rows.digests[row] = np.frombuffer(digest, np.uint8)
            work.rows.status[row] = Status.OK
