"""Digests: the identity of bytes."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt


def array_digest(*arrays: npt.NDArray[Any]) -> bytes:
    """Return one sha256 over the bytes of several arrays, in their order.

    Parameters
    ----------
    *arrays : ndarray
        Any dtype without Python objects.

    Returns
    -------
    bytes
        32 bytes.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.digest()
