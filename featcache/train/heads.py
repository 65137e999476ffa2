"""Heads in training: the parameters and momenta of torch.optim.SGD, H at once."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats, LinearHead
from featcache.core.training_specs import SgdSpec

Mask = npt.NDArray[np.bool_]


class Heads:
    """H heads of one shape that begin with equal weights.

    Letters: X (b, D) features, W (H, C, D + 1) the weights with the bias as last
    column, V the momentum, of the same shape. Seen as (H * C, D + 1), W makes the
    scores of all heads one product.

    Parameters
    ----------
    start : LinearHead
        Initial weights of each head.
    specs : sequence of SgdSpec
        One per head; what belongs to the data is not looked at here.
    """

    def __init__(self, start: LinearHead, specs: Sequence[SgdSpec]) -> None:
        first = np.concatenate([start.weight, start.bias[:, None]], axis=1)
        self.W: Floats = np.repeat(first[None], len(specs), axis=0)
        self.V: Floats = np.zeros_like(self.W)
        self.specs = tuple(specs)
        self._coefficients()

    def _coefficients(self) -> None:
        """Set the settings of all heads as arrays (H,)."""
        self.momentum: Floats = _floats(s.momentum for s in self.specs)
        self.weight_decay: Floats = _floats(s.weight_decay for s in self.specs)
        self.nesterov: Mask = np.array([s.nesterov for s in self.specs])

    def __len__(self) -> int:
        return len(self.specs)

    def lr(self, epoch: int) -> Floats:
        """Return the learning rates of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        ndarray of float32, shape (H,)
            As StepLR has them; infinite where one overflows.
        """
        return _floats(spec.lr_at(epoch) for spec in self.specs)

    def scores(self, X: Floats) -> Floats:
        """Return the scores of every head.

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Standardised as in training.

        Returns
        -------
        ndarray of float32, shape (n, H, C)
            Before the softmax.
        """
        H, C, columns = self.W.shape
        flat = self.W.reshape(H * C, columns)
        scores: Floats = X @ flat[:, :-1].T
        scores += flat[:, -1]
        return scores.reshape(len(X), H, C)

    def finite(self) -> Mask:
        """Tell which heads have finite weights.

        Returns
        -------
        ndarray of bool, shape (H,)
            False where one overflowed or is no number.
        """
        return np.array([bool(np.isfinite(W).all()) for W in self.W])

    def head(self, index: int) -> LinearHead:
        """Return a copy of one head as it is.

        Parameters
        ----------
        index : int
            In [0, H).

        Returns
        -------
        LinearHead
            For features standardised as in training.
        """
        W = self.W[index]
        return LinearHead(np.ascontiguousarray(W[:, :-1]), W[:, -1].copy())

    def keep(self, kept: Mask) -> None:
        """Go on with some of the heads.

        Parameters
        ----------
        kept : ndarray of bool, shape (H,)
            Which.
        """
        self.W, self.V = self.W[kept], self.V[kept]
        self.specs = tuple(np.array(self.specs, object)[kept])
        self._coefficients()


def _floats(values: Iterable[float]) -> Floats:
    with np.errstate(over="ignore"):  # beyond float32: infinite, as in torch
        return np.fromiter(values, np.float64).astype(np.float32)
