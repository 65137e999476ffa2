"""Threads: results in order, work that is bounded, and an end to all of it."""

from featcache.vision.threads import Threads
from tests.vision.stored import image_threads


def test_zero_workers_means_one_per_core():
    """The default uses the cores there are."""
    with Threads(0) as threads:
        assert threads.workers >= 1


def test_work_is_done_ahead_but_not_far():
    """No more than the asked items are begun before results are taken."""
    begun = []
    with Threads(1) as threads:
        results = threads.ordered(lambda i: begun.append(i) or i, range(100), ahead=5)
        assert next(results) == 0
        results.close()
    assert len(begun) <= 6


def test_threads_end_with_work_they_never_began():
    """Closing waits for what is being done, not for what is queued."""
    done = []
    with Threads(1) as threads:
        results = threads.ordered(done.append, range(10_000), ahead=9_000)
        next(results)
    assert image_threads() == []
    assert len(done) < 10_000
