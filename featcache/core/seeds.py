"""Randomness that can be repeated: every draw has a seed and a purpose."""

import zlib

import numpy as np
import numpy.typing as npt

from featcache.core.errors import SpecError


def generator(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """Return a generator that depends on nothing but its arguments.

    Parameters
    ----------
    seed : int
        The user's seed, not negative.
    purpose : str
        What is drawn; two purposes never share a stream.
    *keys : int
        Position of the draw, such as epoch and sample_index.

    Returns
    -------
    numpy.random.Generator
        Equal streams for equal arguments on every machine.

    Raises
    ------
    SpecError
        When the seed is negative.
    """
    if seed < 0:
        raise SpecError(f"a seed must not be negative, got {seed}")
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *keys])


def epoch_order(n: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order in which one epoch visits the training samples.

    The cached and the online path both ask here, so that equal seeds give equal
    batches.

    Parameters
    ----------
    n : int
        Number of samples.
    seed : int
        The user's seed.
    epoch : int
        Epoch, from 0.

    Returns
    -------
    ndarray of int64, shape (n,)
        A permutation of ``range(n)``.
    """
    return generator(seed, "order", epoch).permutation(n)
