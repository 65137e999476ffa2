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
from featcache.train.standardize import Scaling
from featcache.train.steps import Losses, NumpyEpochs, Rows

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


@_compiled
def _shift(P: Floats, y: Labels, at_label: Floats, right: Losses) -> None:
    """P (b, H, C) -= its largest over the classes; at_label (b, H) what y has then."""
    b, H, C = P.shape
    for i in range(b):
        for h in range(H):
            p = P[i, h]
            top = p[0]
            for c in range(1, C):
                top = max(top, p[c])
            for c in range(C):
                p[c] -= top
            at_label[i, h] = p[y[i]]
            if p[y[i]] == _ZERO:
                right[h] += 1


@_compiled
def _normalise(P: Floats, y: Labels, at_label: Floats, loss: Losses) -> None:
    """P (b, H, C), exponentials, becomes (softmax - one-hot) / b."""
    b, H, C = P.shape
    size = np.float32(b)
    for i in range(b):
        for h in range(H):
            p, total = P[i, h], _ZERO
            for c in range(C):
                total += p[c]
            loss[h] += np.log(total) - at_label[i, h]
            scale = _ONE / (total * size)
            for c in range(C):
                p[c] *= scale
            p[y[i]] -= _ONE / size


@_compiled
def _update_all(
    W: Floats,
    V: Floats,
    G: Floats,
    coefficients: Floats,
    nesterov: npt.NDArray[np.bool_],
) -> None:
    for h in range(len(W)):
        lr, momentum, decay = coefficients[h]
        _update(W[h], V[h], G[h], lr, momentum, decay, nesterov[h])


class MixedEpochs(NumpyEpochs):
    """Epochs of SGD for many or wide heads: only products and exponentials in numpy.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    scaling : Scaling
        Applied to the features as they are fetched.
    batch_size : int
        b; the last batch may be smaller.
    """

    def _allocate(self) -> None:
        super()._allocate()
        self.at_label = np.empty(self.P.shape[:2], np.float32)

    def _softmax(self, P: Floats, y: Labels, loss: Losses, right: Losses) -> None:
        at_label = self.at_label[: len(y)]
        _shift(P, y, at_label, right)
        np.exp(P, out=P)  # with the processor's vectors, which numba has not
        _normalise(P, y, at_label, loss)

    def _step(self, lr: Floats) -> None:
        heads = self.heads
        settings = (lr[:, 0, 0], heads.momentum, heads.weight_decay)
        coefficients = np.stack(settings, axis=1)
        _update_all(heads.W, heads.V, self.G, coefficients, heads.nesterov)


class CompiledEpochs:
    """Epochs of SGD in compiled loops, one head after the other.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    scaling : Scaling
        Applied to all features when they are taken.
    batch_size : int
        b; the last batch may be smaller.
    """

    def __init__(self, heads: Heads, scaling: Scaling, batch_size: int) -> None:
        self.heads, self.scaling, self.batch_size = heads, scaling, batch_size
        self._taken: npt.NDArray[np.floating] | None = None

    def load(self, X: npt.NDArray[np.floating], y: Labels) -> None:
        """Take the samples that are visited next.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            Features as in the cache; the same array is not scaled again.
        y : ndarray of int32, shape (n,)
            Labels.
        """
        if X is self._taken:
            return
        self._taken, self.y = X, y
        self.X = np.ascontiguousarray(self.scaling(X)).view()
        self.X.flags.writeable = False  # numba compiles for this once more otherwise

    def run(self, order: Rows, lr: Floats) -> tuple[Losses, Losses]:
        """Visit samples in order, changing the heads.

        Parameters
        ----------
        order : ndarray of int64, shape (m,)
            Rows of the samples taken; only the last batch may be smaller than b.
        lr : ndarray of float32, shape (H,)
            Learning rate of each head.

        Returns
        -------
        loss, right : ndarray of float64, shape (H,)
            Sums over the visits, while the weights moved: nats, and hits.
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
        loss, right = totals.T
        return loss, right
