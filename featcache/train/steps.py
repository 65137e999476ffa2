"""SGD steps in numpy: all heads in one matrix product, nothing allocated per step."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats
from featcache.core.metrics import Labels
from featcache.train.heads import Heads
from featcache.train.standardize import Scaling

Rows = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]

_GATHERED = 1 << 20  # bytes of features fetched at once: they stay in the L2 cache
_BLOCK = 1 << 16  # weights updated at once, for the same reason


class Epochs(Protocol):
    """Whoever can train heads for an epoch, or a part of one."""

    def load(self, X: npt.NDArray[np.floating], y: Labels) -> None:
        """Take the samples that are visited next.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            Features as in the cache; not changed before the next call.
        y : ndarray of int32, shape (n,)
            Labels.
        """

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


class NumpyEpochs:
    """Epochs of SGD in numpy.

    Letters: X (b, D) features, W (H, C, D + 1) weights and bias, P (b, H, C) scores,
    then probabilities, then d(loss)/d(scores), G gradient and V momentum, both shaped
    as W, T scratch for a block of it.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    scaling : Scaling
        Applied to the features as they are fetched.
    batch_size : int
        b; the last batch may be smaller.
    """

    def __init__(self, heads: Heads, scaling: Scaling, batch_size: int) -> None:
        self.heads, self.scaling, self.batch_size = heads, scaling, batch_size
        self._fetched = np.empty((0, 0), np.float32)
        self._allocate()

    def load(self, X: npt.NDArray[np.floating], y: Labels) -> None:
        """Take the samples that are visited next.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            Features as in the cache; may be memory-mapped.
        y : ndarray of int32, shape (n,)
            Labels.
        """
        self.X, self.y = X, y
        batch_bytes = self.batch_size * X.shape[1] * X.itemsize
        rows = self.batch_size * max(1, _GATHERED // batch_bytes)
        if (rows, X.dtype) != (len(self._fetched), self._fetched.dtype):
            self._fetched = np.empty((rows, X.shape[1]), X.dtype)

    def _allocate(self) -> None:
        """Make what a step writes to, for the heads that are left."""
        heads = self.heads
        H, C, columns = heads.W.shape
        self.G = np.empty_like(heads.W)
        self.blocks = _blocks(heads.W.shape)
        self.T = np.empty_like(heads.W[self.blocks[0]])
        self.flat_W = heads.W.reshape(H * C, columns)
        self.flat_G = self.G.reshape(H * C, columns)
        self.P = np.empty((self.batch_size, H, C), np.float32)
        self.top = np.empty((self.batch_size, H, 1), np.float32)
        self.momentum = per_head(heads.momentum)
        self.weight_decay = per_head(heads.weight_decay)
        self.decays = bool(heads.weight_decay.any())
        self.nesterov = bool(heads.nesterov.any())
        self.plain = ~heads.nesterov[:, None, None]

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
        if len(self.G) != len(self.heads):
            self._allocate()  # a head was dropped
        H, rows, b = len(self.heads), len(self._fetched), self.batch_size
        loss, right, rates = np.zeros(H), np.zeros(H), per_head(lr)
        for first in range(0, len(order), rows):
            X, y = self._fetch(order[first : first + rows])
            for start in range(0, len(y), b):
                x, labels = X[start : start + b], y[start : start + b]
                P = self._forward(x, labels, loss, right)
                self._update(x, P, rates)
        return loss, right

    def _fetch(self, rows: Rows) -> tuple[Floats, Labels]:
        """Return some samples, standardised."""
        X = self._fetched[: len(rows)]
        # mode: with "raise" numpy would fill a copy of `out` first.
        np.take(self.X, rows, axis=0, out=X, mode="clip")
        return self.scaling(X), self.y[rows]

    def _forward(self, X: Floats, y: Labels, loss: Losses, right: Losses) -> Floats:
        """Return d(mean cross-entropy)/d(scores) = (softmax - one-hot) / b."""
        P = self.P[: len(y)]
        flat = P.reshape(len(y), -1)
        np.matmul(X, self.flat_W[:, :-1].T, out=flat)
        flat += self.flat_W[:, -1]
        self._softmax(P, y, loss, right)
        return flat

    def _softmax(self, P: Floats, y: Labels, loss: Losses, right: Losses) -> None:
        """Turn scores P (b, H, C) into their gradient; add to the sums."""
        b, rows = len(y), np.arange(len(y))
        top = self.top[:b]
        np.max(P, axis=2, keepdims=True, out=top)
        P -= top
        at_label = P[rows, :, y]  # (b, H), 0 where the label has the highest score
        right += (at_label == 0).sum(axis=0)
        np.exp(P, out=P)
        np.sum(P, axis=2, keepdims=True, out=top)
        loss += (np.log(top[:, :, 0]) - at_label).sum(axis=0, dtype=np.float64)
        top *= np.float32(b)
        P /= top
        P[rows, :, y] -= np.float32(1 / b)

    def _update(self, X: Floats, P: Floats, lr: Floats) -> None:
        np.matmul(P.T, X, out=self.flat_G[:, :-1])
        np.sum(P, axis=0, out=self.flat_G[:, -1])
        self._step(lr)

    def _step(self, lr: Floats) -> None:
        """Take torch's step: v = momentum * v + g (the first v is g), w -= lr * v."""
        for block in self.blocks:
            self._update_block(block, lr)

    def _update_block(self, block: tuple[slice, slice], lr: Floats) -> None:
        heads, h = self.heads, block[0]
        W, V, G = heads.W[block], heads.V[block], self.G[block]
        T = self.T[: len(W), : W.shape[1]]
        if self.decays:
            np.multiply(W, self.weight_decay[h], out=T)
            G += T
        V *= self.momentum[h]
        V += G
        if self.nesterov:  # w -= lr * (g + momentum * v)
            np.multiply(V, self.momentum[h], out=T)
            T += G
            np.copyto(T, V, where=self.plain[h])
            T *= lr[h]
        else:
            np.multiply(V, lr[h], out=T)
        W -= T


def _blocks(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Cut weights (H, C, D + 1) into parts that stay in the L2 cache."""
    H, C, columns = shape
    if H * C * columns <= _BLOCK:
        return [(slice(0, H), slice(0, C))]
    rows = max(1, _BLOCK // columns)
    return [
        (slice(h, h + 1), slice(c, min(c + rows, C)))
        for h in range(H)
        for c in range(0, C, rows)
    ]


def per_head(values: Floats) -> Floats:
    """Return a setting of each head in a shape that fits the weights.

    Parameters
    ----------
    values : ndarray of float32, shape (H,)
        One per head.

    Returns
    -------
    ndarray of float32, shape (H, 1, 1)
        Where all heads agree without a stride, which is faster.
    """
    if (values == values[0]).all():
        values = np.broadcast_to(values[0], values.shape)
    return values[:, None, None]
