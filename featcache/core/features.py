"""Features of some samples with their labels: what a head is trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.metrics import Labels


@dataclass(frozen=True, eq=False)
class Features:
    """Features and labels of n samples.

    Parameters
    ----------
    X : ndarray of float32 or float16, shape (n, D)
        One feature a row; memory-mapped where the rows lie together in the cache.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    sample_index : ndarray of int64, shape (n,)
        Rows of the cache.
    """

    X: npt.NDArray[np.floating]
    y: Labels
    sample_index: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)
