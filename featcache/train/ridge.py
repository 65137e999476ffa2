"""Ridge regression on one-hot targets, every lambda from one eigendecomposition.

Letters: X (n, D) features, Y (n, C) one-hot labels; P (n, r) the centred features along
their principal directions (the axes), p a row of it; e (r,) their sums of squares
there: P'P = diag(e).
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.metrics import Labels, cross_entropy
from featcache.core.solver_specs import RidgeSpec
from featcache.train.calibration import fit_scale
from featcache.train.passes import (
    Doubles,
    Sliced,
    class_sums,
    judged_rows,
    row_blocks,
    threads_for,
)
from featcache.train.solved import Solved, describe, edge_note


def fit_ridge(
    train: Features, val: Features | None, *, classes: int, spec: RidgeSpec
) -> Solved[LinearHead]:
    """Fit ridge regression on one-hot targets.

    Lambda is the value with the lowest log loss when each training sample is left out
    in turn. That is exact and costs no second fit, uses every sample, and works for
    classes of a single image, which a hold-out or folds do not.

    What ridge regression predicts is near 0 or 1 and no logit, so its softmax would
    never be sure of anything. A temperature is fitted to the left-out predictions of
    each lambda and folded into the weights: lambdas are compared, and probabilities
    are to be understood, with it.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,). Read in blocks: memory grows with D and not with n.
    val : Features, optional
        For the report.
    classes : int
        C.
    spec : RidgeSpec
        Grid of lambda.

    Returns
    -------
    Solved
        ``chosen_lambda`` and ``chosen_temperature``.
    """
    began = time.perf_counter()
    n, D = len(train), train.embed_dim
    with threads_for(n * D * min(n, D)):
        path = decompose(Sliced(train), train.y, classes)
        grid = tuple(sorted(spec.lambdas))
        penalty, scale = best_penalty(path, train, grid)
        weight, bias = path.solution(penalty)
        head = LinearHead(
            (scale * weight).astype(np.float32), (scale * bias).astype(np.float32)
        )
        record = describe(head, train, val, began=began)
    note = edge_note("lambda", "--lambda", penalty, grid)
    chosen = {"chosen_lambda": penalty, "chosen_temperature": 1 / scale}
    return Solved(head, record, chosen, (note,) if note else ())


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The solutions for every lambda.

    Parameters
    ----------
    n : int
        Number of samples.
    mean : ndarray of float64, shape (D,)
        Of the features.
    share : ndarray of float64, shape (C,)
        Of the samples that each class has.
    axes : ndarray of float64, shape (D, r)
        Orthonormal directions in which the features vary.
    squares : ndarray of float64, shape (r,)
        Sum of the squared centred features along each.
    targets : ndarray of float64, shape (r, C)
        Products of the centred features along each with the one-hot labels.
    """

    n: int
    mean: Doubles
    share: Doubles
    axes: Doubles
    squares: Doubles
    targets: Doubles

    def solution(self, penalty: float) -> tuple[Doubles, Doubles]:
        """Return the weights for one lambda.

        Parameters
        ----------
        penalty : float
            Lambda, positive; scikit-learn's alpha.

        Returns
        -------
        ndarray of float64, shapes (C, D) and (C,)
            Weight and bias that minimise ``|X W' + b - Y|**2 + lambda |W|**2``; the
            bias has no penalty.
        """
        weight = (self.axes @ (self.targets / (self.squares + penalty)[:, None])).T
        return weight, self.share - weight @ self.mean

    def leave_one_out(
        self, X: npt.NDArray[np.floating], y: Labels, penalties: tuple[float, ...]
    ) -> Doubles:
        """Return what each sample is given by the fit to all others.

        The leave-one-out residual is the residual over 1 - h, with the leverage
        h = 1/n + p' diag(1 / (e + lambda)) p (Allen 1974, the PRESS statistic; Hastie,
        Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10).

        Parameters
        ----------
        X : ndarray, shape (k, D)
            Some of the features that the path was made of.
        y : ndarray of int32, shape (k,)
            Their labels.
        penalties : tuple of float
            L values of lambda.

        Returns
        -------
        ndarray of float64, shape (L, k, C)
            Predictions; near 1 for the class, near 0 for the others.
        """
        grid, C = np.array(penalties), len(self.share)
        result = np.empty((len(grid), len(y), C))
        shrunk = 1 / (self.squares[:, None] + grid)  # (r, L)
        # 1 - h without taking nearly equal numbers from each other: what no direction
        # reaches, which is nothing if n <= r + 1, and what lambda takes from them.
        inverse = 1 / self.squares
        for rows in row_blocks(len(y), self.axes.shape[0]):
            P = (np.asarray(X[rows], np.float64) - self.mean) @ self.axes
            Y = np.eye(C)[y[rows]]
            slack = np.maximum(1 - 1 / self.n - P**2 @ inverse, 0)[:, None]
            rest = slack + P**2 @ (grid * shrunk * inverse[:, None])
            rest = np.maximum(rest, np.finfo(np.float64).eps)
            for i in range(len(grid)):
                fitted = P @ (self.targets * shrunk[:, i, None]) + self.share
                result[i, rows] = Y - (Y - fitted) / rest[:, i, None]
        return result


def decompose(
    X: npt.NDArray[np.floating] | Sliced, y: Labels, classes: int
) -> RidgePath:
    """Return the solutions for every lambda, from one eigendecomposition.

    Of X'X (D, D), summed in blocks of rows, where there are more samples than
    features; else of X X' (n, n). Both of centred features, in float64.

    Parameters
    ----------
    X : ndarray or Sliced, shape (n, D)
        Features; read in blocks where they are more than D.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    classes : int
        C.

    Returns
    -------
    RidgePath
        Directions in which the features vary by no more than rounding are left out.
    """
    n, D = X.shape
    share = np.bincount(y, minlength=classes) / n
    if n < D:
        return _of_rows(np.asarray(X[:], np.float64), y, share)
    mean, product, targets = _moments(X, y, share)
    squares, axes = np.linalg.eigh(product)
    kept = _varying(squares, D)
    axes = axes[:, kept]
    return RidgePath(n, mean, share, axes, squares[kept], axes.T @ targets)


def _of_rows(X: Doubles, y: Labels, share: Doubles) -> RidgePath:
    """Decompose X X' = U e U'; the axes are X'U / sqrt(e)."""
    n, mean = len(X), X.mean(axis=0)
    centred = X - mean
    squares, vectors = np.linalg.eigh(centred @ centred.T)
    kept = _varying(squares, X.shape[1])
    squares, vectors = squares[kept], vectors[:, kept]
    lengths = np.sqrt(squares)
    targets = lengths[:, None] * class_sums(vectors, y, len(share)).T
    targets -= np.outer(lengths * vectors.sum(axis=0), share)
    return RidgePath(n, mean, share, centred.T @ vectors / lengths, squares, targets)


def _moments(
    X: npt.NDArray[np.floating] | Sliced, y: Labels, share: Doubles
) -> tuple[Doubles, Doubles, Doubles]:
    """Return the mean (D,), X'X (D, D) and X'Y (D, C), both centred, in one pass."""
    n, D = X.shape
    # Sums of squares about a point near the mean: about zero they would lose digits.
    near = np.asarray(X[next(row_blocks(n, D))], np.float64).mean(axis=0)
    total, product, targets = np.zeros(D), np.zeros((D, D)), np.zeros((len(share), D))
    for rows in row_blocks(n, D):
        block = np.asarray(X[rows], np.float64) - near
        total += block.sum(axis=0)
        product += block.T @ block
        targets += class_sums(block, y[rows], len(share))
    product -= np.outer(total, total) / n
    targets -= np.outer(share, total)
    return near + total / n, product, targets.T


def _varying(squares: Doubles, count: int) -> npt.NDArray[np.bool_]:
    """Return which eigenvalues are more than rounding."""
    result: npt.NDArray[np.bool_] = squares > squares.max(initial=0) * count * (
        np.finfo(np.float64).eps
    )
    return result


def best_penalty(
    path: RidgePath, train: Features, grid: tuple[float, ...]
) -> tuple[float, float]:
    """Choose lambda by leaving each sample out.

    Parameters
    ----------
    path : RidgePath
        The solutions.
    train : Features
        What the path was made of.
    grid : tuple of float
        Values of lambda.

    Returns
    -------
    (float, float)
        The lambda of the lowest left-out log loss, and the scale that makes logits of
        its predictions.
    """
    at = judged_rows(path.n, len(path.share))
    y = train.y[at]
    found = []
    for penalty, scores in zip(
        grid, path.leave_one_out(train.fetch(at), y, grid), strict=True
    ):
        scale = fit_scale(scores, y)
        found.append((cross_entropy(scale * scores, y), penalty, scale))
    _, penalty, scale = min(found)
    return penalty, scale
