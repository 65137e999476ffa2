"""Splitting: a stratified, stable choice of validation samples by hash of the path."""

import hashlib

import numpy as np
import numpy.typing as npt

from featcache.core.manifest import TRAIN, VAL

VAL_SHARE = 0.2  # of each class, where the folder itself has no val split


def hash_fraction(path: bytes) -> float:
    """Return a number in [0, 1) that depends on nothing but the path.

    Parameters
    ----------
    path : bytes
        Relative to the data folder.

    Returns
    -------
    float
        The first 8 bytes of its blake2b, as a fraction.
    """
    digest = hashlib.blake2b(path, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def hashed_splits(
    paths: npt.NDArray[np.bytes_], labels: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint8]:
    """Choose about a fifth of each class for validation.

    A sample's split follows from its own path, so adding files never moves another
    sample, with one exception: a class of two or more samples always keeps at least
    one on either side, for which the lowest or highest hash is taken. A class of one
    sample is trained on.

    Parameters
    ----------
    paths : ndarray of bytes, shape (n,)
        Relative paths.
    labels : ndarray of int32, shape (n,)
        Their classes.

    Returns
    -------
    ndarray of uint8, shape (n,)
        `TRAIN` or `VAL`.
    """
    fractions = _hash_fractions(paths)
    splits = np.where(fractions < VAL_SHARE, VAL, TRAIN).astype(np.uint8)
    order = np.lexsort((fractions, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    # Already so unless all of a class fell on one side; of a single sample, train wins.
    splits[order[starts]] = VAL
    splits[order[starts + counts - 1]] = TRAIN
    return splits


def _hash_fractions(paths: npt.NDArray[np.bytes_]) -> npt.NDArray[np.float64]:
    """Return `hash_fraction` of each path: of a million in half the time."""
    digests = (hashlib.blake2b(path, digest_size=8).digest() for path in paths.tolist())
    numbers = np.frombuffer(b"".join(digests), ">u8")
    return numbers.astype(np.float64) * 2.0**-64  # both round to the nearest
