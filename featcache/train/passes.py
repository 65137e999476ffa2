"""Passing over many features in blocks of bounded memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features, Matrix
from featcache.core.metrics import Labels

Doubles = npt.NDArray[np.float64]

_NUMBERS = 1 << 22  # of a block: 32 MiB in float64
_JUDGED_ROWS = 8192  # enough for one number, such as a temperature
_JUDGED_SCORES = 1 << 19  # 4 MiB in float64
_WORTH_THREADS = 5_000_000_000  # multiplications: a tenth of a second or more


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Keep BLAS to one thread where several would wait for each other.

    Measured with a busy second core: 15 times longer for L-BFGS on 195 x 512, 19 times
    for ridge regression on 1442 x 512.

    Parameters
    ----------
    multiplications : int
        Of all the work, about.

    Yields
    ------
    None
        While the limit holds.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1 if multiplications < _WORTH_THREADS else None):
        yield


class Sliced:
    """Features as an array of which only the slices that are asked for are in memory.

    Parameters
    ----------
    features : Features
        X (n, D).
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self.shape = len(features), features.embed_dim

    def __getitem__(self, rows: slice) -> Matrix:
        start, stop, _ = rows.indices(self.shape[0])
        part: Matrix = np.empty((stop - start, self.shape[1]), self._features.dtype)
        self._features.read(start, part)
        return part


def row_blocks(n: int, width: int) -> Iterator[slice]:
    """Cut rows into blocks of 32 MiB in float64.

    Parameters
    ----------
    n : int
        Number of rows.
    width : int
        Numbers in a row.

    Yields
    ------
    slice
        In order; every row once.
    """
    size = max(1, _NUMBERS // max(1, width))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def judged_rows(
    n: int, classes: int, most: int = _JUDGED_ROWS
) -> npt.NDArray[np.int64]:
    """Return the rows by which one number, such as a temperature, is chosen.

    Parameters
    ----------
    n : int
        Number of rows. A cache has them by class, so every class gets its share.
    classes : int
        C.
    most : int
        Number of rows at most.

    Returns
    -------
    ndarray of int64
        All rows; where they are more, as many evenly spaced, and no more than half a
        million scores of these.
    """
    count = min(n, most, max(1024, _JUDGED_SCORES // classes))
    return np.linspace(0, n - 1, count).round().astype(np.int64)


def class_sums(X: Doubles, y: Labels, classes: int) -> Doubles:
    """Return the sum of the rows of each class.

    Parameters
    ----------
    X : ndarray of float64, shape (n, D)
        At least one row.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    classes : int
        C.

    Returns
    -------
    ndarray of float64, shape (C, D)
        Zeros for a class without rows; the cost does not grow with C.
    """
    order = np.argsort(y, kind="stable")
    present, starts = np.unique(y[order], return_index=True)
    sums = np.zeros((classes, X.shape[1]))
    sums[present] = np.add.reduceat(X[order], starts, axis=0)
    return sums
