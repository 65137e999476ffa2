"""Intervals and paired tests: against scipy, plain resampling and known numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from featcache.core.intervals import (
    bootstrap_difference,
    bootstrap_recall,
    discordant,
    holm,
    mcnemar_exact,
    sign_test,
    smallest_visible,
    wilson,
)


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_is_scipys(n, share):
    """Both ends, from none right to all right."""
    right = round(share * n)
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_the_readmes_number():
    """146 of 153, the ants and bees."""
    low, high = wilson(146, 153)
    assert (round(low, 3), round(high, 3)) == (0.909, 0.978)


def test_wilson_keeps_its_promise_where_a_bootstrap_does_not():
    """153 images, true accuracy 90 to 99.5 %: how often the interval holds it."""
    n, right = 153, np.arange(154)
    p = np.clip(right / n, 1e-9, 1 - 1e-9)
    bootstrap = np.array([binom.ppf(q, n, p) / n for q in (0.025, 0.975)])
    ours = np.array([wilson(k, n) for k in right.tolist()]).T

    def coverage(ends, truth):
        held = (ends[0] <= truth) & (truth <= ends[1])
        return binom.pmf(right, n, truth)[held].sum()

    truths = np.linspace(0.9, 0.995, 40)
    assert np.mean([coverage(ours, t) for t in truths]) > 0.95
    assert np.mean([coverage(bootstrap, t) for t in truths]) < 0.92
    assert min(coverage(ours, t) for t in truths) > 0.9
    assert min(coverage(bootstrap, t) for t in truths) < 0.6


@given(a=st.integers(0, 60), b=st.integers(0, 60))
def test_the_sign_test_is_scipys(a, b):
    """Two-sided binomial test of one half."""
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert sign_test(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_takes_large_counts():
    """A hundred thousand disagreements, and a p value too small for a float."""
    expected = binomtest(50_500, 101_500).pvalue
    assert sign_test(50_500, 51_000) == pytest.approx(expected, rel=1e-6)
    assert sign_test(0, 100_000) == 0


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_swapping_the_models_swaps_the_sign(pairs):
    """Neither model is preferred."""
    a, b = np.array(pairs).T
    assert discordant(a, b) == discordant(b, a)[::-1]
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    low, high = bootstrap_difference(a, b)
    assert -1 <= low <= high <= 1
    if len(set(discordant(a, b))) == 2:
        assert bootstrap_difference(b, a) == (-high, -low)


def test_mcnemar_of_a_textbook_case():
    """12 against 2 of 14 disagreements: 2 (1 + 14 + 91) / 2**14."""
    a = np.array([True] * 12 + [False] * 2 + [True] * 100)
    b = np.array([False] * 12 + [True] * 2 + [True] * 100)
    assert mcnemar_exact(a, b) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar_exact(a, a) == 1


def test_the_paired_bootstrap_equals_drawing_samples():
    """The multinomial counts are those of samples drawn with replacement."""
    random = np.random.default_rng(3)
    a, b = random.random(80) < 0.9, random.random(80) < 0.75
    rows = random.integers(0, 80, (20_000, 80))
    drawn = a[rows].mean(axis=1) - b[rows].mean(axis=1)
    expected = np.percentile(drawn, [2.5, 97.5])
    assert bootstrap_difference(a, b) == pytest.approx(expected, abs=1 / 79)


def test_the_recall_bootstrap_equals_drawing_samples_of_each_class():
    """Stratified: every class keeps its number of samples; an empty one is left out."""
    random = np.random.default_rng(4)
    confusion = np.array([[18, 2, 0], [3, 4, 0], [0, 0, 0]])
    classes = [np.repeat([1, 0], [18, 2]), np.repeat([1, 0], [4, 3])]
    drawn = np.mean(
        [c[random.integers(0, len(c), (20_000, len(c)))].mean(1) for c in classes], 0
    )
    expected = np.percentile(drawn, [2.5, 97.5])
    assert bootstrap_recall(confusion) == pytest.approx(expected, abs=0.01)


def test_intervals_are_the_same_each_time():
    """A seed decides; another one changes little."""
    confusion = [[90, 10], [20, 80]]
    assert bootstrap_recall(confusion) == bootstrap_recall(confusion)
    other = bootstrap_recall(confusion, seed=1)
    assert bootstrap_recall(confusion) == pytest.approx(other, abs=0.005)
    assert bootstrap_recall([[5, 0], [0, 5]]) == (1, 1)


@given(m=st.integers(6, 200), n=st.integers(200, 2000))
def test_the_smallest_visible_difference_is_just_significant(m, n):
    """One disagreement moved to the other side, and the test sees it no more."""
    ahead = round(smallest_visible(m, n) * n)
    behind = (m - ahead) // 2
    assert ahead + 2 * behind == m
    assert sign_test(behind, m - behind) < 0.05
    assert sign_test(behind + 1, m - behind - 1) >= 0.05


def test_no_difference_is_visible_with_five_images():
    """Six to none is the least that is significant."""
    assert smallest_visible(0, 5) is None
    assert smallest_visible(0, 153) == pytest.approx(6 / 153)


@given(m=st.integers(10, 200), n=st.integers(200, 2000), tests=st.integers(1, 20))
def test_of_several_tests_less_is_visible(m, n, tests):
    """Just significant, when its p value is multiplied by their number."""
    ahead = round(smallest_visible(m, n, tests=tests) * n)
    behind = (m - ahead) // 2
    assert tests * sign_test(behind, m - behind) < 0.05
    assert tests * sign_test(behind + 1, m - behind - 1) >= 0.05


@given(p=st.lists(st.floats(0, 1), max_size=12))
def test_holm_steps_down(p):
    """The smallest at level / m, the next at level / (m - 1), until one is not."""
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for before, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] * (len(p) - before) >= level:
                break
            rejected.add(i)
        assert {i for i, a in enumerate(adjusted) if a < level} == rejected


def test_holm_of_a_textbook_case():
    """0.005 x 4, 0.01 x 3, 0.03 x 2; 0.04 x 1 may not be below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
