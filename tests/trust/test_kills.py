"""Kill anything, any time; fail any call: no bad file, no wrong row, a plain error."""

import sys

import pytest

from tests.shards import SOURCES
from tests.trust.zygote import proof

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forks, signals and calls are Linux's"
)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(4, id="a few"),
        pytest.param(
            300, id="hundreds", marks=[pytest.mark.slow, pytest.mark.timeout(900)]
        ),
    ],
)
def test_a_killed_extraction_ends_in_the_bytes_of_a_whole_one(count):
    """SIGKILL at random moments costs at most one block a worker, and no row."""
    result = proof("kills", count=count, seed=count)
    assert result["kills"] == count
    assert result["images_repeated"] <= result["images_repeated_at_most"]
    if count >= 100:  # of a few kills, none may fall into the work itself
        assert result["found_after_kill"]["an unfinished file"] > count / 100


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_killed_extraction_of_any_source_ends_in_the_bytes_of_a_whole_one(source):
    """As of a folder; what an earlier state of the source had is found again."""
    result = proof("kills", count=40, seed=1, source=source)
    assert result["kills"] == 40
    assert result["images_repeated"] <= result["images_repeated_at_most"]


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(20, id="sample"),
        pytest.param(0, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_failing_call_never_makes_a_bad_file(most):
    """Whichever call fails, is cut short or killed: resumed to equal bytes."""
    result = proof("faults", most=most)
    assert result["faults"] == (most or result["possible"])
    assert result["possible"] > 400
    assert set(result["ends"]) == {"error", "killed", "ok"}
