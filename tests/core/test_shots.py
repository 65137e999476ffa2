"""Few of many training images: counts, seeds, nesting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.shots import Level, doubling, draw_share, draw_shots

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(y=labels, shots=st.integers(1, 12), seed=st.integers(0, 99))
def test_as_many_of_each_class_and_more_contain_fewer(y, shots, seed):
    """Rising rows, each once; a class that has fewer gives all."""
    y = np.array(y, np.int32)
    rows = draw_shots(y, shots, seed=seed)
    assert (np.diff(rows) > 0).all()
    expected = np.minimum(np.bincount(y), shots)
    assert np.bincount(y[rows]).tolist() == expected.tolist()
    assert set(rows) <= set(draw_shots(y, shots + 1, seed=seed))


@given(y=labels, share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_share_takes_part_of_each_class_and_one_at_least(y, share, seed):
    y = np.array(y, np.int32)
    counts = np.bincount(y)
    drawn = np.bincount(y[draw_share(y, share, seed=seed)], minlength=len(counts))
    expected = np.maximum(np.round(share * counts), counts > 0)
    assert drawn.tolist() == expected.tolist()
    assert Level(share=share).least(counts[counts > 0]) == drawn[counts > 0].min()


def test_seeds_draw_others():
    y = np.zeros(100, np.int32)
    assert not np.array_equal(draw_shots(y, 5, seed=0), draw_shots(y, 5, seed=1))


def test_the_numbers_double_up_to_what_every_class_has_then_all():
    """A number as good as all is left out."""

    def numbers(*counts, least=1):
        return [level.shots for level in doubling(np.array(counts), least)]

    assert numbers(123, 121) == [1, 2, 4, 8, 16, 32, 64, None]
    assert numbers(128, 128) == [1, 2, 4, 8, 16, 32, 64, None]
    assert numbers(5, 1000, least=2) == [2, 4, None]
    assert numbers(1, 1) == [None]
    assert Level().whole
    assert Level().draw(np.zeros(4, np.int32), seed=0).tolist() == [0, 1, 2, 3]
