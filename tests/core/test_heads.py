"""The head: torch's linear layer, in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from featcache.core.heads import LinearHead, initial_head, softmax, unit_rows

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=8)


def scores_of(bound: float):
    """Return a strategy of float32 scores in [-bound, bound]."""
    numbers = st.floats(-bound, bound, width=32)
    return arrays(np.float32, SHAPES, elements=numbers)


@given(scores=scores_of(2.0**127))
def test_probabilities_sum_to_one(scores):
    """No score is so large that the softmax overflows."""
    probabilities = softmax(scores)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)


@given(scores=scores_of(80))
def test_softmax_is_torchs(scores):
    """Row by row the numbers are those of ``torch.softmax``."""
    expected = torch.from_numpy(scores).softmax(dim=1).numpy()
    np.testing.assert_allclose(softmax(scores), expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_are_torchs(dtype):
    """``X @ weight.T + bias``, also of stored half floats."""
    head = initial_head(3, 16, seed=0)
    X = np.random.default_rng(0).normal(size=(5, 16)).astype(dtype)
    layer = torch.nn.Linear(16, 3)
    layer.load_state_dict(
        {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
    )
    with torch.no_grad():
        expected = layer(torch.from_numpy(X.astype(np.float32))).numpy()
    assert head.scores(X).dtype == np.float32
    np.testing.assert_allclose(head.scores(X), expected, atol=1e-6)
    np.testing.assert_allclose(head.probabilities(X), softmax(expected), atol=1e-6)


@given(a=st.floats(-4, 4), b=st.floats(-4, 4))
def test_scores_are_linear(a, b):
    """Without its bias a head maps sums to sums."""
    head = LinearHead(initial_head(3, 8, seed=1).weight, np.zeros(3, np.float32))
    X, Y = np.random.default_rng(0).normal(size=(2, 4, 8))
    expected = a * head.scores(X) + b * head.scores(Y)
    np.testing.assert_allclose(head.scores(a * X + b * Y), expected, atol=1e-4)


@pytest.mark.parametrize(("classes", "embed_dim"), [(2, 512), (1000, 64), (1, 1)])
def test_a_new_head_is_distributed_as_torchs(classes, embed_dim):
    """Weight and bias fill the bounds of ``torch.nn.Linear``, and keep them."""
    head = initial_head(classes, embed_dim, seed=0)
    assert head.weight.shape == (classes, embed_dim)
    assert head.bias.shape == (classes,)
    bound = float(np.float32(embed_dim**-0.5))
    layer = torch.nn.Linear(embed_dim, classes)
    for ours, theirs in ((head.weight, layer.weight), (head.bias, layer.bias)):
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous
        assert np.abs(ours).max() <= bound
        assert theirs.abs().max().item() <= bound
    if classes * embed_dim > 1000:
        assert np.abs(head.weight).max() > 0.98 * bound
        assert head.weight.std() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert head.weight.mean() == pytest.approx(0, abs=0.05 * bound)


def test_a_new_head_follows_from_its_seed():
    """Equal seeds, equal heads; another seed, another head."""
    one, two, other = (initial_head(2, 8, seed=seed).weight for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_head_that_normalises_does_not_mind_the_length_of_features():
    """Scores are those of unit rows; zeros score the bias."""
    plain = initial_head(3, 8, seed=0)
    head = LinearHead(plain.weight, plain.bias, normalize=True)
    X = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    X[0] = 0
    assert np.array_equal(head.scores(X), plain.scores(unit_rows(X)))
    assert head.scores(X * np.float32(9)) == pytest.approx(head.scores(X), abs=1e-6)
    assert np.array_equal(head.scores(X)[0], plain.bias)
