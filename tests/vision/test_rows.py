"""Rows of a block: finite numbers are told from others, bit by bit."""

import numpy as np
import pytest

from featcache.vision.rows import BlockRows


def test_every_float16_is_judged_as_numpy_does():
    """All 65,536 of them, each in a row of its own beside a zero."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rows = BlockRows.pending(len(numbers), 2, "float16")
    rows.features[:] = 0
    for column in (0, 1):
        rows.features[:, column] = numbers
        assert np.array_equal(rows.finite(), np.isfinite(numbers))
        rows.features[:] = 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_views_that_nobody_wants_are_not_judged(dtype):
    rows = BlockRows.pending(3, (2, 5), dtype, np.array([1, 2, 2]))
    rows.features[0, 0] = rows.features[1] = rows.features[2, 0] = 1
    assert rows.finite().tolist() == [True, True, False]
    rows.features[0, 0, 4] = -np.inf
    assert rows.finite().tolist() == [False, True, False]
