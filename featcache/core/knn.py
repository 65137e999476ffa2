"""The other head: weighted votes of the nearest training features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.displays import Displayed, Told
from featcache.core.heads import Floats, LinearHead, unit_rows
from featcache.core.metrics import Labels

_QUERIES = 512  # rows whose neighbours are sought at once
_KEYS = 16_384  # rows of the bank that they are compared with at once: 32 MiB
_MAXIMUM_OF = 32  # columns of which only the highest is looked at first

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KnnHead(Displayed):
    """Weighted k nearest neighbours by cosine.

    As DINO (Caron et al. 2021) and dinov2 evaluate: each of the k most similar training
    features votes for its class with weight ``exp(similarity / temperature)``. It holds
    all training features, so it is as large as they are.

    Parameters
    ----------
    bank : ndarray of float32, shape (n, D)
        Training features of length one, n at least 1.
    labels : ndarray of int32, shape (n,)
        Their classes, in [0, C).
    classes : int
        C.
    k : int
        How many vote; all where the bank has fewer.
    temperature : float
        Small: the nearest decide; large: all k count alike.
    """

    bank: Floats
    labels: Labels
    classes: int
    k: int
    temperature: float

    def _told(self) -> Told:
        yield "embed dim", self.embed_dim
        yield "classes", self.classes
        yield "images", len(self.bank)
        yield "k", self.k
        yield "temperature", self.temperature

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self.bank.shape[1])

    def scores(self, X: Floats) -> Floats:
        """Return the logarithm of each class's share of the votes.

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Features.

        Returns
        -------
        ndarray of float32, shape (n, C)
            Finite: one further neighbour votes for all classes alike, so that a class
            without a vote has the probability 1 / (C (k + 1)) instead of none.
        """
        return self.vote(*self.neighbours(X, self.k))

    def probabilities(self, X: Floats) -> Floats:
        """Return each class's share of the votes.

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Features.

        Returns
        -------
        ndarray of float32, shape (n, C)
            Rows sum to one.
        """
        return np.exp(self.scores(X))

    def neighbours(self, X: Floats, k: int) -> tuple[Floats, Rows]:
        """Return the most similar rows of the bank.

        Memory is bounded: similarities exist for 512 x 16,384 rows at once.

        Parameters
        ----------
        X : ndarray of float32, shape (n, D)
            Features of any length.
        k : int
            How many, at least 1; all where the bank has fewer.

        Returns
        -------
        ndarray of float32 and of int64, both of shape (n, min(k, rows of the bank))
            Cosines and rows of the bank, the most similar first.
        """
        k = min(k, len(self.bank))
        similar, rows = np.empty((len(X), k), np.float32), np.empty((len(X), k), int)
        for part in _slices(len(X), _QUERIES):
            queries = unit_rows(np.asarray(X[part], np.float32))
            similar[part], rows[part] = self._nearest(queries, k)
        return similar, rows

    def vote(self, similar: Floats, rows: Rows) -> Floats:
        """Return the scores that given neighbours vote for.

        Parameters
        ----------
        similar : ndarray of float32, shape (n, m)
            Cosines of m neighbours, at least one.
        rows : ndarray of int64, shape (n, m)
            Their rows of the bank.

        Returns
        -------
        ndarray of float32, shape (n, C)
            As `scores`.
        """
        n, m = similar.shape
        behind = similar.astype(np.float64)
        behind -= behind.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):  # so far behind the nearest, a vote is 0
            weights = np.exp(behind / self.temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        cells = np.arange(n)[:, None] * self.classes + self.labels[rows]
        size = n * self.classes
        votes = np.bincount(cells.ravel(), weights.ravel(), minlength=size)
        shares = (m * votes + 1 / self.classes) / (m + 1)
        result: Floats = np.log(shares).astype(np.float32).reshape(n, self.classes)
        return result

    def _nearest(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """Return cosines and rows (b, k) of unit queries (b, D), the best first."""
        best = np.empty((len(queries), 0), np.float32)
        rows = np.empty((len(queries), 0), np.int64)
        for part in _slices(len(self.bank), _KEYS):
            found = queries @ self.bank[part].T
            kept = _highest(found, k)
            best = np.hstack([best, np.take_along_axis(found, kept, 1)])
            rows = np.hstack([rows, kept + part.start])
            kept = _highest(best, k)
            best = np.take_along_axis(best, kept, 1)
            rows = np.take_along_axis(rows, kept, 1)
        order = np.argsort(-best, axis=1, kind="stable")
        return np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)


Head = LinearHead | KnnHead
"""Whatever scores features."""


def _highest(values: Floats, k: int) -> Rows:
    """Return the columns of the k highest values of each row, in any order."""
    b, m = values.shape
    if m <= k:
        return np.broadcast_to(np.arange(m), values.shape)
    G = m // _MAXIMUM_OF
    if k >= G:
        return np.argpartition(values, -k, axis=1)[:, -k:]
    # Column g + s G is in group g: whatever is in none of the k groups of the highest
    # maxima has k values above it. A maximum costs less than finding places.
    maxima = values[:, : G * _MAXIMUM_OF].reshape(b, _MAXIMUM_OF, G).max(axis=1)
    groups = np.argpartition(maxima, -k, axis=1)[:, -k:]
    inside = (groups[:, None] + G * np.arange(_MAXIMUM_OF)[:, None]).reshape(b, -1)
    rest = np.broadcast_to(np.arange(G * _MAXIMUM_OF, m), (b, m % _MAXIMUM_OF))
    some = np.hstack([inside, rest])
    found = np.argpartition(np.take_along_axis(values, some, 1), -k, axis=1)[:, -k:]
    return np.take_along_axis(some, found, 1)


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
