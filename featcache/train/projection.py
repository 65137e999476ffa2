"""Maps: features brought down to two numbers each, for people to look at."""

from typing import Literal

import numpy as np

from featcache.core.errors import SpecError
from featcache.core.features import Matrix
from featcache.core.heads import Floats
from featcache.core.seeds import generator
from featcache.train.passes import threads_for

Method = Literal["pca", "tsne"]

METHODS: tuple[Method, ...] = ("pca", "tsne")
PERPLEXITY = 30.0  # scikit-learn's and the paper's (van der Maaten and Hinton 2008)

_KEPT = 50  # components that t-SNE is given: the paper's 30 and a margin
_SPREAD = 1e-4  # of t-SNE's start, as scikit-learn's own PCA start has it
# More of both than scikit-learn's own: components of nearly equal variance, too, are
# the same for every seed.
_MARGIN, _POWERS = 50, 7


def project(
    features: Matrix,
    method: Method = "pca",
    *,
    seed: int = 0,
    perplexity: float = PERPLEXITY,
) -> Floats:
    """Return a point of the plane for each feature.

    PCA is linear: far is far. t-SNE keeps neighbours together; neither the distances
    between groups nor their sizes mean anything.

    Parameters
    ----------
    features : ndarray, shape (n, D)
        n at least 1, finite. t-SNE takes about five seconds for a thousand.
    method : {"pca", "tsne"}
        t-SNE is given 50 principal components, and starts from the first two.
    seed : int
        Equal seeds give equal points; those of other seeds differ by rounding.
    perplexity : float
        Of t-SNE: about how many neighbours a point has. Never more than a third of
        the other points.

    Returns
    -------
    ndarray of float32, shape (n, 2)
        Zeros where all features are equal.

    Raises
    ------
    SpecError
        When there is no feature, or no such method or perplexity.
    """
    require_method(method)
    if not perplexity > 0:
        raise SpecError(f"perplexity must be above 0, got {perplexity:g}")
    if not len(features):
        raise SpecError("there is no feature to draw; choose another split")
    X = np.array(features, np.float32)  # of its own: it is changed
    if (X[0] == X).all():
        return np.zeros((len(X), 2), np.float32)
    random = int(generator(seed, "map").integers(2**31))
    components = _components(X, _KEPT if method == "tsne" else 2, random)
    if method == "pca":
        return components
    return _neighbours(components, perplexity, random)


def require_method(method: str) -> None:
    """Refuse a name that is none of a method.

    Parameters
    ----------
    method : str
        As the user gave it.

    Raises
    ------
    SpecError
        Naming those there are.
    """
    if method not in METHODS:
        raise SpecError(f"unknown method {method!r}; expected {' or '.join(METHODS)}")


def _components(X: Floats, count: int, random: int) -> Floats:
    """Return the first principal components (n, count), or as many as there are.

    Two at least: zeros where there is one alone. scikit-learn makes the largest
    loading of each positive, so their signs do not depend on the order of rows.
    """
    from sklearn.decomposition import PCA

    X /= np.abs(X).max()  # no square of it overflows or vanishes
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    there = min(count, *X.shape)
    pca = PCA(
        there,
        svd_solver="randomized",
        n_oversamples=_MARGIN,
        iterated_power=_POWERS,
        random_state=random,
    )
    with threads_for((there + _MARGIN) * 2 * (_POWERS + 1) * X.size):
        found: Floats = pca.fit_transform(X)
    return np.pad(found, ((0, 0), (0, max(0, 2 - there))))


def _neighbours(components: Floats, perplexity: float, random: int) -> Floats:
    """Return t-SNE's points."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(
        perplexity=min(perplexity, (len(components) - 1) / 3),
        init=components[:, :2] * (_SPREAD / components[:, 0].std()),
        random_state=random,
        learning_rate="auto",
    )
    # One thread: several add up in an order of their own, so that no two maps would
    # be alike, and took 2.7 times the CPU time where a core was busy.
    with threadpool_limits(1):
        points: Floats = tsne.fit_transform(components)
    return points
