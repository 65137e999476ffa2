"""Near duplicates by codes: compiled code loses no pair, whatever the features are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.core.features import Features
from featcache.core.heads import unit_rows
from featcache.train import near, near_kernel
from featcache.train.near_code import Shape
from featcache.train.near_kernel import Comparison, agrees, comparison_here

pytest.importorskip("llvmlite")
WIDE = Shape(queries=4, vectors=4, vnni=True)
NARROW = Shape(queries=2, vectors=2, vnni=False)


def as_features(X):
    return Features(X, np.zeros(len(X), np.int32), np.arange(len(X)))


def here(shape):
    """Return the comparison, if this processor has its instructions."""
    own = near_kernel._own_shape()
    if shape.vnni and not own.vnni:
        pytest.skip("this processor has no AVX-512 VNNI")
    return Comparison(shape)


def found(X, threshold, compare):
    """Return the pairs, and how often each was given; tiles are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_QUERIES", 64)
        patch.setattr(near, "_KEYS", 128)
        return [
            pair
            for i, j, _ in near.compiled_pairs(as_features(X), threshold, compare)
            for pair in zip(i.tolist(), j.tolist(), strict=True)
        ]


@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["vnni", "any processor"])
@given(
    n=st.integers(1, 300),
    D=st.sampled_from([2, 63, 64, 100, 255, 256, 300]),
    noise=st.sampled_from([0.01, 0.3, 3.0]),
    shift=st.sampled_from([0.0, 5.0]),
    threshold=st.sampled_from([0.5, 0.92, 0.999]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_the_pairs_are_those_of_the_full_product(
    shape, n, D, noise, shift, threshold, seed
):
    """Each once: few directions or many, a common one or none, one far outlier."""
    random = np.random.default_rng(seed)
    X = shift + random.normal(size=(5, D))[random.integers(0, 5, n)]
    X = (X + noise * random.normal(size=(n, D))).astype(np.float32)
    X[seed % n] = -100
    cosines = unit_rows(X) @ unit_rows(X).T
    sure = np.triu(cosines >= threshold + 1e-5, 1)
    never = ~np.triu(cosines >= threshold - 1e-5, 1)
    pairs = found(X, threshold, here(shape))
    assert len(set(pairs)) == len(pairs)
    assert set(zip(*np.nonzero(sure), strict=True)) <= set(pairs)
    assert not any(never[pair] for pair in pairs)


@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["vnni", "any processor"])
def test_the_compiled_sums_are_numpys(shape):
    assert agrees(here(shape))


def test_nearly_all_pairs_are_passed_over(monkeypatch):
    """Of features with a common direction, as those after a ReLU have one."""
    random = np.random.default_rng(0)
    X = random.normal(size=(1000, 90)) @ random.normal(size=(90, 300))
    X = np.abs(X + 9).astype(np.float32)
    X[700] = X[3] * 2
    asked, exact = [], near.exact_pairs
    monkeypatch.setattr(
        near,
        "exact_pairs",
        lambda f, i, *rest: asked.append(len(i)) or exact(f, i, *rest),
    )
    compare = Comparison()
    assert found(X, 0.97, compare) == [(3, 700)]
    assert sum(asked) < 20


def test_where_all_are_near_every_pair_is_found():
    """More than a tile has room for: they come by the full product."""
    X = 1 + np.random.default_rng(0).uniform(0, 0.1, (300, 70)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_ROOM", 128)
        pairs = found(X, 0.9, Comparison())
    assert len(pairs) == len(set(pairs)) == 300 * 299 // 2


def test_progress_is_told_to_the_end():
    told = []
    X = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    list(near.compiled_pairs(as_features(X), 0.9, Comparison(), told.append))
    assert sum(told) == 500


def test_a_wrong_comparison_is_not_used(monkeypatch):
    """It is tried on random codes first; the reason is told."""
    monkeypatch.setattr(near_kernel, "agrees", lambda _: False)
    compare, reason = comparison_here.__wrapped__()
    assert compare is None
    assert reason == "the compiled comparison of rows is wrong on this processor"


def test_without_llvmlite_the_reason_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llvmlite.binding", None)
    near_kernel._addresses.cache_clear()
    compare, reason = comparison_here.__wrapped__()
    assert compare is None
    assert "pip install 'featcache[fast]'" in reason
