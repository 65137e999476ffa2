"""Classes as clouds of points: features that take no image."""

import numpy as np

from featcache.core.features import Features


def blobs(
    n: int, classes: int, seed: int = 0, noise: float = 1.5, dim: int = 10
) -> Features:
    """Return n float32 features in dim dimensions; the classes take turns."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % classes).astype(np.int32)
    centres = np.random.default_rng(7).standard_normal((classes, dim))
    X = centres[y] + noise * random.standard_normal((n, dim))
    return Features(X.astype(np.float32), y, np.arange(n))
