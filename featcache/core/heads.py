"""The head: a linear map from features to class scores."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.displays import Displayed, Told
from featcache.core.seeds import generator

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LinearHead(Displayed):
    """A linear map from D-dimensional features to C class scores.

    With `normalize` it is no longer linear: every feature vector is first divided by
    its Euclidean norm. A plain ``torch.nn.Linear`` then needs unit rows as input.

    Parameters
    ----------
    weight : ndarray of float32, shape (C, D)
        Row c scores class c, as in ``torch.nn.Linear``.
    bias : ndarray of float32, shape (C,)
        Added to the scores.
    normalize : bool
        Whether features are brought to unit length first.
    """

    weight: Floats
    bias: Floats
    normalize: bool = False

    def _told(self) -> Told:
        yield "embed dim", self.embed_dim
        yield "classes", len(self.bias)
        if self.normalize:
            yield "features", "brought to unit length first"

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self.weight.shape[1])

    def scores(self, X: Floats) -> Floats:
        """Return the class scores (logits).

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Features.

        Returns
        -------
        ndarray of float32, shape (n, C)
            ``X @ weight.T + bias``, of unit rows with `normalize`.
        """
        X = np.asarray(X, np.float32)
        return (unit_rows(X) if self.normalize else X) @ self.weight.T + self.bias

    def probabilities(self, X: Floats) -> Floats:
        """Return softmax probabilities.

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Features.

        Returns
        -------
        ndarray of float32, shape (n, C)
            Rows sum to one.
        """
        return softmax(self.scores(X))


def unit_rows(X: Floats) -> Floats:
    """Return every row divided by its Euclidean norm.

    Parameters
    ----------
    X : ndarray of float32, shape (n, D)
        Features.

    Returns
    -------
    ndarray of float32, shape (n, D)
        A copy with rows of length 1; rows of zeros stay zero.
    """
    # Twice, so that squares of values beyond 1e19 or below 1e-23 count as well.
    lengths: Floats = np.abs(X).max(axis=1, initial=0)
    lengths[lengths == 0] = 1
    unit: Floats = X / lengths[:, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    lengths[lengths == 0] = 1
    unit /= lengths[:, None]
    return unit


def softmax(scores: Floats) -> Floats:
    """Return the softmax of each row.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores.

    Returns
    -------
    ndarray of float32, shape (n, C)
        Probabilities; the largest score is taken off first, so nothing overflows.
    """
    with np.errstate(over="ignore"):  # so far below the largest, e**x is 0 anyway
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def initial_head(classes: int, embed_dim: int, *, seed: int) -> LinearHead:
    """Return a randomly initialised head, distributed as ``torch.nn.Linear``'s.

    Parameters
    ----------
    classes : int
        C.
    embed_dim : int
        D.
    seed : int
        The user's seed.

    Returns
    -------
    LinearHead
        Weight and bias uniform in ``[-1/sqrt(D), 1/sqrt(D)]``, which is what
        Kaiming's rule with ``a = sqrt(5)`` comes to.
    """
    bound = embed_dim**-0.5
    draw = generator(seed, "head").uniform(-bound, bound, (classes, embed_dim + 1))
    weight = np.ascontiguousarray(draw[:, :embed_dim], np.float32)
    return LinearHead(weight, np.ascontiguousarray(draw[:, embed_dim], np.float32))
