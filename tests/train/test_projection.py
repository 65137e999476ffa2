"""Maps of features: finite, the same again, neighbours kept, nothing changed."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featcache.core.errors import SpecError
from featcache.train.projection import METHODS, project


def clouds(n=60, classes=3, D=40, seed=0):
    """Return features of classes far from each other, and their labels."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    means = 8 * random.normal(size=(classes, D))
    return (means[y] + random.normal(size=(n, D))).astype(np.float32), y


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("D", [1, 2, 60])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_features_have_finite_points(n, D, method):
    """Fewer rows than components, neighbours and numbers."""
    X = np.random.default_rng(n).normal(size=(n, D)).astype(np.float32)
    points = project(X, method)
    assert points.shape == (n, 2)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert n == 1 or np.ptp(points) > 0


@pytest.mark.parametrize("method", METHODS)
def test_equal_features_lie_on_one_point(method):
    assert (project(np.full((5, 7), 3.5, np.float32), method) == 0).all()


def test_pca_has_the_distances_of_the_svd():
    """Compared with numpy's, whose signs are arbitrary; in units of the largest."""
    X, _ = clouds()
    u, s, _ = np.linalg.svd((X - X.mean(axis=0)).astype(np.float64))
    expected = u[:, :2] * s[:2] / np.abs(X).max()
    points = project(X)
    signs = np.sign((points * expected).sum(axis=0))
    np.testing.assert_allclose(points, expected * signs, atol=1e-4)


def test_signs_and_seeds_change_nothing_in_pca():
    """Not the order of rows either; with variances that lie close together."""
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 128)) * np.geomspace(1, 0.1, 128)
    X = X.astype(np.float32)
    points = project(X)
    np.testing.assert_allclose(project(X[::-1])[::-1], points, atol=2e-2)
    np.testing.assert_allclose(project(X, seed=1), points, atol=2e-2)


def test_tsne_keeps_neighbours_together():
    X, y = clouds()
    points = project(X, "tsne")
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (y[distances.argmin(axis=1)] == y).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_again_whatever_the_threads(method):
    X, _ = clouds()
    first = project(X, method, seed=3)
    with threadpool_limits(1):
        again = project(X, method, seed=3)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_features_of_any_scale_have_the_same_map(scale):
    X, _ = clouds()
    np.testing.assert_allclose(project(X * np.float32(scale)), project(X), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_are_not_changed(dtype):
    """Those of a cache are mapped and may not be written to."""
    X = clouds()[0].astype(dtype)
    before = X.copy()
    X.setflags(write=False)
    project(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        (3, {"method": "umap"}, "unknown method 'umap'; expected pca or tsne"),
        (3, {"method": "tsne", "perplexity": 0}, "perplexity must be above 0, got 0"),
        (3, {"perplexity": float("nan")}, "perplexity must be above 0, got nan"),
        (0, {}, "there is no feature to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(rows, options, match):
    with pytest.raises(SpecError, match=match):
        project(np.ones((rows, 2), np.float32), **options)
