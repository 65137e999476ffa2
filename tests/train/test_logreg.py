"""Logistic regression: scikit-learn's, its C chosen on held-out training data."""

import time

import numpy as np
import pytest
from blobs import blobs
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from featcache.core.errors import SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.solver_specs import LogRegSpec
from featcache.train.logreg import fit_logreg

BEFORE = {"none": (), "zscore": (StandardScaler(),), "l2": (Normalizer(),)}


@pytest.mark.parametrize("standardize", BEFORE)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities_equal_scikit_learns(classes, standardize):
    """Two classes as well as many become a softmax head for features as they are."""
    train = blobs(100, classes)
    spec = LogRegSpec(C=(0.1,), standardize=standardize)
    fitted = fit_logreg(train, None, classes=classes, spec=spec)
    model = LogisticRegression(C=0.1, max_iter=1000)
    expected = make_pipeline(*BEFORE[standardize], model).fit(train.X, train.y)
    found = fitted.head.probabilities(train.X)
    assert fitted.chosen == {"chosen_C": 0.1}
    assert np.allclose(found, expected.predict_proba(train.X), atol=1e-4)


@pytest.mark.parametrize("cv", [0, 4])
def test_c_is_chosen_without_looking_at_val(cv):
    """Noise wants a small C; what val holds does not change the choice."""
    train = blobs(60, 2, noise=6)
    chosen = {
        fit_logreg(train, val, classes=2, spec=LogRegSpec(cv=cv)).chosen["chosen_C"]
        for val in (None, blobs(50, 2, seed=1), blobs(50, 2, seed=2, noise=0.1))
    }
    assert len(chosen) == 1
    assert chosen.pop() < 1


def test_going_on_from_the_last_weights_chooses_as_beginning_anew_would():
    """Warm starts save time; the held-out losses are those of scikit-learn's folds."""
    train = blobs(90, 3, noise=2)
    spec = LogRegSpec(C=(1e-3, 1e-2, 1e-1, 1.0), cv=3)
    chosen = fit_logreg(train, None, classes=3, spec=spec).chosen["chosen_C"]
    losses = {}
    for C in spec.C:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-6))
        losses[C] = np.mean([loss_of(model, train, held) for held in folds(train)])
    assert chosen == min(losses, key=losses.__getitem__)


def folds(train):
    from featcache.train.folds import held_out

    return held_out(train.y, holdout=0.2, cv=3, seed=0)


def loss_of(model, train, held):
    probabilities = model.fit(train.X[~held], train.y[~held]).predict_proba(
        train.X[held]
    )
    return -np.log(probabilities[np.arange(held.sum()), train.y[held]]).mean()


def test_values_of_c_that_do_not_converge_are_left_out_and_named():
    """A fit that was cut short is never compared with one that was not."""
    train = blobs(60, 2, noise=0.2)
    spec = LogRegSpec(C=(1e-6, 1e8, 1e9), max_iter=4)
    fitted = fit_logreg(train, None, classes=2, spec=spec)
    assert fitted.chosen["chosen_C"] == 1e-6
    assert fitted.notes[0] == (
        "did not converge in 4 iterations, left out: C = 1e+08 and above"
    )


def test_the_walk_ends_where_larger_c_only_gets_worse(monkeypatch):
    """Noise: after two values in a row that are worse, none is fitted."""
    seen = []
    fit = LogisticRegression.fit

    def noted(model, X, y):
        seen.append(model.C)
        return fit(model, X, y)

    monkeypatch.setattr(LogisticRegression, "fit", noted)
    train = blobs(60, 2, noise=6)
    solved = fit_logreg(train, None, classes=2, spec=LogRegSpec())
    *walked, last = seen
    assert last == solved.chosen["chosen_C"] == walked[-3]
    assert walked == list(LogRegSpec.C[: len(walked)])
    assert len(walked) < len(LogRegSpec.C)


def test_a_best_value_on_the_edge_is_told():
    """The smallest of the grid: smaller ones may be better."""
    train = blobs(60, 2, noise=6)
    solved = fit_logreg(train, None, classes=2, spec=LogRegSpec(C=(1.0, 10.0)))
    (note,) = solved.notes
    assert note.startswith(
        "the best C, 1, is the smallest that was tried; smaller ones"
    )


def test_no_convergence_at_all_is_an_error():
    """With every C cut short there is no head to trust."""
    spec = LogRegSpec(C=(1e7, 1e8), max_iter=2)
    with pytest.raises(TrainingError, match="converged for no C in 2 iterations"):
        fit_logreg(blobs(60, 2), None, classes=2, spec=spec)
    with pytest.raises(TrainingError, match=r"C = 1e\+08 did not converge"):
        fit_logreg(blobs(60, 2), None, classes=2, spec=LogRegSpec(C=(1e8,), max_iter=2))


def test_a_class_of_one_image_cannot_be_held_out():
    """The message says which, and the way round, which works."""
    train = blobs(9, 2)
    y = np.array([0] * 8 + [1], np.int32)
    few = Features(train.X, y, train.sample_index)
    with pytest.raises(TrainingError, match="class number 1 has a single training"):
        fit_logreg(few, None, classes=2, spec=LogRegSpec())
    alone = fit_logreg(few, None, classes=2, spec=LogRegSpec(C=(0.1,)))
    assert alone.chosen["chosen_C"] == 0.1


def test_one_class_is_an_error():
    """There is nothing to tell apart."""
    with pytest.raises(TrainingError, match="at least two classes, got 1"):
        fit_logreg(blobs(9, 1), None, classes=1, spec=LogRegSpec())


def test_one_fold_is_no_number_of_folds():
    """0 means a held-out part."""
    with pytest.raises(SpecError, match="cv must be 0, or a whole number from 2"):
        LogRegSpec(cv=1)


def test_features_of_very_different_size_converge_quickly():
    """What took a minute unscaled: large C, 512 features of different spread."""
    random = np.random.default_rng(0)
    base = blobs(244, 2, noise=2, dim=512)
    X = (base.X * random.lognormal(0, 2, 512)).astype(np.float32)
    train = Features(X, base.y, base.sample_index)
    fit_logreg(train, None, classes=2, spec=LogRegSpec(C=(1.0,)))  # imports
    began = time.perf_counter()
    fit_logreg(train, None, classes=2, spec=LogRegSpec())
    assert time.perf_counter() - began < 2
