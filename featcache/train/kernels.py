"""SGD steps compiled by numba: where numpy's calls cost more than the arithmetic.

Import this module only where it pays: numba takes a third of a second to load, and
compiling takes three the first time (it is kept on disk). Without numba these functions
are plain Python: right, and very slow.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats
from featcache.core.metrics import Labels
from featcache.train.heads import Heads
from featcache.train.steps import Losses, Rows

Function = TypeVar("Function", bound=Callable[..., Any])

_TILE = 16  # samples whose features are used twice while they are in the L1/L2 cache
_ONE, _ZERO = np.float32(1), np.float32(0)


def _compiled(function: Function) -> Function:
    """Compile a function if numba is there."""
    try:
        import numba
    except ImportError:
        return function
    # Sums may be reordered and multiply-adds fused, as every BLAS does; nan and
    # infinity keep their meaning.
    how: dict[str, Any] = {
        "nogil": True,
        "fastmath": {"reassoc", "contract"},
        "error_model": "numpy",
    }
    try:
        made: Function = numba.njit(cache=True, **how)(function)
    except RuntimeError:  # no place on disk where compiled code could be kept
        made = numba.njit(**how)(function)
    return made


@_compiled
def _score(X: Floats, rows: Rows, W: Floats, P: Floats) -> None:
    """P (b, C) = scores; two samples and two classes at a time share their loads."""
    k, C, D = len(rows), W.shape[0], W.shape[1] - 1
    for i in range(0, k, 2):
        j = min(i + 1, k - 1)  # an odd one out is computed twice
        x0, x1 = X[rows[i]], X[rows[j]]
        for c in range(0, C, 2):
            e = min(c + 1, C - 1)
            w0, w1 = W[c], W[e]
            s00 = s01 = s10 = s11 = _ZERO
            for d in range(D):
                s00 += x0[d] * w0[d]
                s01 += x0[d] * w1[d]
                s10 += x1[d] * w0[d]
                s11 += x1[d] * w1[d]
            P[i, c], P[i, e] = s00 + w0[D], s01 + w1[D]
            P[j, c], P[j, e] = s10 + w0[D], s11 + w1[D]


@_compiled
def _softmax_gradient(P: Floats, y: Labels, rows: Rows, b: int) -> tuple[float, int]:
    """P (k, C) = (softmax - one-hot) / b; return the summed loss and the hits."""
    # Written as loops: numpy's functions allocate, which takes as long as the sums.
    loss, right, size = 0.0, 0, np.float32(b)
    for i in range(len(rows)):
        p, label = P[i], y[rows[i]]
        top = p[0]
        for c in range(1, len(p)):
            top = max(top, p[c])
        at_label = p[label]
        if at_label >= top:
            right += 1
        total = _ZERO
        for c in range(len(p)):
            p[c] = np.exp(p[c] - top)
            total += p[c]
        loss += np.log(total) - (at_label - top)
        scale = _ONE / (total * size)
        for c in range(len(p)):
            p[c] *= scale
        p[label] -= _ONE / size
    return loss, right


@_compiled
def _add_gradient(X: Floats, rows: Rows, P: Floats, G: Floats) -> None:
    """G (C, D + 1) += P' [X 1]; four samples share the loads and stores of G."""
    k, C, D = len(rows), G.shape[0], G.shape[1] - 1
    whole = k - k % 4
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = X[rows[i]], X[rows[i + 1]], X[rows[i + 2]], X[rows[i + 3]]
        for c in range(C):
            g = G[c]
            p0, p1, p2, p3 = P[i, c], P[i + 1, c], P[i + 2, c], P[i + 3, c]
            for d in range(D):
                g[d] += p0 * x0[d] + p1 * x1[d] + p2 * x2[d] + p3 * x3[d]
            g[D] += p0 + p1 + p2 + p3
    for i in range(whole, k):
        x0 = X[rows[i]]
        for c in range(C):
            g, p0 = G[c], P[i, c]
            for d in range(D):
                g[d] += p0 * x0[d]
            g[D] += p0


@_compiled
def _update(  # noqa: PLR0913, PLR0917 - arrays and numbers: what numba takes
    W: Floats,
    V: Floats,
    G: Floats,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """Take torch's step: v = momentum * v + g, w -= lr * v."""
    for c in range(W.shape[0]):
        w, v, g = W[c], V[c], G[c]
        if nesterov:
            for d in range(len(w)):
                slope = g[d] + weight_decay * w[d]
                v[d] = momentum * v[d] + slope
                w[d] -= lr * (slope + momentum * v[d])
        else:
            for d in range(len(w)):
                v[d] = momentum * v[d] + (g[d] + weight_decay * w[d])
                w[d] -= lr * v[d]


@_compiled
def _epoch(  # noqa: PLR0913, PLR0917
    X: Floats,
    y: Labels,
    order: Rows,
    batch_size: int,
    W: Floats,
    V: Floats,
    coefficients: Floats,
    nesterov: npt.NDArray[np.bool_],
    totals: Losses,
) -> None:
    """Train every head for an epoch; totals (H, 2) gets loss and hits."""
    n, (H, C, columns) = len(order), W.shape
    G, P = np.empty((C, columns), np.float32), np.empty((_TILE, C), np.float32)
    for h in range(H):
        lr, momentum, decay = coefficients[h]
        for start in range(0, n, batch_size):
            stop = min(start + batch_size, n)
            G[:] = 0
            for first in range(start, stop, _TILE):
                rows = order[first : min(first + _TILE, stop)]
                _score(X, rows, W[h], P)
                loss, right = _softmax_gradient(P, y, rows, stop - start)
                totals[h, 0] += loss
                totals[h, 1] += right
                _add_gradient(X, rows, P, G)
            _update(W[h], V[h], G, lr, momentum, decay, nesterov[h])


class CompiledEpochs:
    """Epochs of SGD in compiled loops, one head after the other.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    X : ndarray of float32, shape (n, D)
        All training features, standardised; rows contiguous.
    y : ndarray of int32, shape (n,)
        Labels.
    batch_size : int
        b; the last batch may be smaller.
    """

    def __init__(self, heads: Heads, X: Floats, y: Labels, batch_size: int) -> None:
        self.heads, self.y, self.batch_size = heads, y, batch_size
        self.X = np.ascontiguousarray(X).view()
        self.X.flags.writeable = False  # numba compiles for this once more otherwise

    def run(self, order: Rows, lr: Floats) -> tuple[Losses, Losses]:
        """Visit the samples in order, changing the heads.

        Parameters
        ----------
        order : ndarray of int64, shape (n,)
            Rows of the training features.
        lr : ndarray of float32, shape (H,)
            Learning rate of each head.

        Returns
        -------
        loss, accuracy : ndarray of float64, shape (H,)
            Means over the epoch, while the weights moved; the loss in nats.
        """
        heads = self.heads
        coefficients = np.stack([lr, heads.momentum, heads.weight_decay], axis=1)
        totals = np.zeros((len(heads), 2))
        _epoch(
            self.X,
            self.y,
            order,
            self.batch_size,
            heads.W,
            heads.V,
            coefficients,
            heads.nesterov,
            totals,
        )
        loss, accuracy = (totals / len(order)).T
        return loss, accuracy
