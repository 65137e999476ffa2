"""Logistic regression: scikit-learn's, its C chosen on held-out training data."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.specs import LogRegSpec
from featcache.train.logreg import fit_logreg


def blobs(n: int, classes: int, seed: int = 0, noise: float = 1.5) -> Features:
    random = np.random.default_rng(seed)
    y = (np.arange(n) % classes).astype(np.int32)
    centres = np.random.default_rng(7).standard_normal((classes, 10))
    X = centres[y] + noise * random.standard_normal((n, 10))
    return Features(X.astype(np.float32), y, np.arange(n))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities_equal_scikit_learns(classes):
    """Two classes as well as many become a softmax head of equal probabilities."""
    train = blobs(100, classes)
    fitted, chosen = fit_logreg(train, None, classes=classes, spec=LogRegSpec(C=(0.1,)))
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(train.X, train.y)
    found = fitted.head.probabilities(train.X)
    assert chosen == 0.1
    assert np.allclose(found, expected.predict_proba(train.X), atol=1e-5)


def test_c_is_chosen_without_looking_at_val():
    """Noise wants a small C; what val holds does not change the choice."""
    train = blobs(60, 2, noise=6)
    chosen = {
        fit_logreg(train, val, classes=2, spec=LogRegSpec())[1]
        for val in (None, blobs(50, 2, seed=1), blobs(50, 2, seed=2, noise=0.1))
    }
    assert len(chosen) == 1
    assert chosen.pop() < 1


def test_values_of_c_that_do_not_converge_are_left_out_and_named():
    """A fit that was cut short is never compared with one that was not."""
    train = blobs(60, 2, noise=0.2)
    spec = LogRegSpec(C=(1e-6, 1e8), max_iter=4)
    fitted, chosen = fit_logreg(train, None, classes=2, spec=spec)
    assert chosen == 1e-6
    assert fitted.notes == ("did not converge, left out: C = 1e+08",)


def test_no_convergence_at_all_is_an_error():
    """With every C cut short there is no head to trust."""
    spec = LogRegSpec(C=(1e7, 1e8), max_iter=2)
    with pytest.raises(TrainingError, match="converged for no C in 2 iterations"):
        fit_logreg(blobs(60, 2), None, classes=2, spec=spec)
    with pytest.raises(TrainingError, match=r"C = 1e\+08 did not converge"):
        fit_logreg(blobs(60, 2), None, classes=2, spec=LogRegSpec(C=(1e8,), max_iter=2))


def test_a_class_of_one_image_cannot_be_held_out():
    """The message says which, and the way round."""
    train = blobs(9, 2)
    y = np.array([0] * 8 + [1], np.int32)
    with pytest.raises(TrainingError, match="class number 1 has a single training"):
        fit_logreg(
            Features(train.X, y, train.sample_index), None, classes=2, spec=LogRegSpec()
        )
