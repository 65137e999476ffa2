"""Filling: what of an interrupted extraction is taken up, and where images lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.blocks import Block, plan_blocks
from featcache.core.status import Status
from featcache.stages.filling import unfinished
from featcache.stages.tasks import Files
from featcache.vision.scan import scan

SETTLED = (Status.OK, Status.QUARANTINED)


class Begun:
    """An unfinished cache of which is known what is done and what is sound."""

    def __init__(self, status, broken):
        self.status, self._broken = np.array(status, np.uint8), broken

    def sound(self, block):
        return block.index not in self._broken


@given(
    st.lists(st.sampled_from(list(Status)), min_size=1, max_size=60),
    st.sets(st.integers(0, 9)),
)
def test_blocks_that_lack_something_are_unfinished(status, broken):
    """A row that is not settled, or bytes that do not match; in their order."""
    begun, blocks = Begun(status, broken), list(plan_blocks(len(status), 8))
    expected = [
        block
        for block in blocks
        if block.index in broken or any(s not in SETTLED for s in status[block.rows])
    ]
    assert unfinished(iter(blocks), begun) == expected
    assert unfinished(iter(blocks), None) == blocks


def test_the_files_of_a_block_are_those_of_its_rows(shared_photos):
    manifest = scan(shared_photos)
    files = Files(manifest, Block(1, 8, 16))
    expected = [manifest.file(row) for row in range(8, 16)]
    assert [*files] == expected
    assert files[2:4] == expected[2:4]
    assert (len(files), files[-1]) == (8, expected[-1])
    with pytest.raises(IndexError):
        files[8]
