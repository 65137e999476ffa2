"""Blocks: together they cover each row once."""

from hypothesis import given
from hypothesis import strategies as st

from featcache.core.blocks import block_rows, plan_blocks


@given(n=st.integers(0, 3000), rows=st.integers(1, 300))
def test_blocks_cover_each_row_once(n, rows):
    """In order, without gap or overlap; only the last may be short."""
    blocks = list(plan_blocks(n, rows))
    assert [b.index for b in blocks] == list(range(-(-n // rows)))
    covered = [row for b in blocks for row in range(n)[b.rows]]
    assert covered == list(range(n))
    assert all(b.size == rows for b in blocks[:-1])
    assert all(0 < b.size == b.stop - b.start <= rows for b in blocks)


@given(n=st.integers(1, 10**9))
def test_blocks_are_a_power_of_two_from_8_to_256(n):
    """No cache has blocks of another size."""
    assert block_rows(n) in {8, 16, 32, 64, 128, 256}


@given(n=st.integers(1, 10**5), more=st.integers(0, 10**5))
def test_larger_caches_have_no_smaller_blocks(n, more):
    """The size of blocks grows with the cache."""
    assert block_rows(n) <= block_rows(n + more)


@given(n=st.integers(1, 10**9), row_bytes=st.integers(1, 10**8))
def test_blocks_of_large_rows_stay_small_beside_the_memory(n, row_bytes):
    """64 MiB at most, as far as 8 rows allow; rows of features are not concerned."""
    rows = block_rows(n, row_bytes)
    assert rows == 8 or rows * row_bytes <= 64 << 20
    assert rows == block_rows(n) or 2 * rows * row_bytes > 64 << 20
    assert block_rows(n, 2048 * 4) == block_rows(n)


@given(n=st.integers(512, 16384))
def test_caches_of_medium_size_have_32_to_64_blocks(n):
    """Enough that the last blocks leave no worker idle for long."""
    assert 32 <= len(list(plan_blocks(n, block_rows(n)))) <= 64
