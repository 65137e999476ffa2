"""Suspects: images that were being decoded when a process died, tried apart."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from featcache.core.locations import Location
from featcache.core.specs import ViewSpec
from featcache.core.status import Status
from featcache.vision.isolation import suspicion
from featcache.vision.reading import read_bytes
from featcache.vision.rows import BlockRows


def try_suspects(
    rows: BlockRows,
    files: Sequence[Location],
    numbers: Sequence[int],
    suspects: Collection[int],
    view: ViewSpec,
) -> None:
    """Try what was in work when a process died, each image in a process of its own.

    Parameters
    ----------
    rows : BlockRows
        The guilty are marked in place.
    files : sequence of Path, Member or Cell
        The image of each row.
    numbers : sequence of int
        Of each row, as suspects name it.
    suspects : collection of int
        Numbers of images, also of others.
    view : ViewSpec
        Their crop.
    """
    if not suspects:
        return
    for row, number in enumerate(numbers):
        if number not in suspects or rows.status[row] != Status.PENDING:
            continue
        reason = suspicion(files[row], view)
        if reason is not None:
            rows.status[row] = Status.QUARANTINED
            rows.reasons[row] = reason
            digest = hashlib.sha256(read_bytes(files[row])).digest()
            rows.digests[row] = np.frombuffer(digest, np.uint8)
