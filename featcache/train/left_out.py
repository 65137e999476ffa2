"""Probabilities of each sample by a head that was fitted to all the others."""

from collections.abc import Iterator

import numpy as np

from featcache.core.features import Features
from featcache.core.heads import Floats, softmax
from featcache.core.solver_specs import RidgeSpec
from featcache.train.passes import Sliced, row_blocks, threads_for
from featcache.train.ridge import best_penalty, decompose


class LeftOut:
    """Ridge regression, cross-validated with a fold for every sample.

    The closed form needs one fit for all folds, works for classes of two images, and
    holds D x D numbers, whatever n is (see `featcache.train.ridge`).

    Parameters
    ----------
    features : Features
        X (n, D), y (n,), of two classes at least.
    classes : int
        C.
    """

    def __init__(self, features: Features, classes: int) -> None:
        n, D = len(features), features.embed_dim
        self._features, self._work = features, n * D * min(n, D)
        with threads_for(self._work):
            self._path = decompose(Sliced(features), features.y, classes)
            grid = tuple(sorted(RidgeSpec().lambdas))
            self._penalty, self._scale = best_penalty(self._path, features, grid)

    def probabilities(self) -> Iterator[tuple[slice, Floats]]:
        """Pass over all samples.

        Yields
        ------
        (slice, ndarray of float32, shape (m, C))
            Successive samples, and what the head without each gives it.
        """
        X, y = Sliced(self._features), self._features.y
        C = len(self._path.share)
        with threads_for(self._work):
            for rows in row_blocks(len(y), max(C, X.shape[1])):
                left = self._path.leave_one_out(X[rows], y[rows], (self._penalty,))
                yield rows, softmax((self._scale * left[0]).astype(np.float32))
