"""The clock of an extraction, and what its report makes of it."""

import contextlib
import threading
import time

import pytest

from featcache.core.clock import Clock
from featcache.core.timing import WORK, Timing


def test_a_clock_adds_up_over_threads():
    """Two threads of 20 ms each are 40 ms of the stage, also when one fails."""
    clock = Clock("read", "decode")

    def work(fails):
        with clock.worker(), clock.stage("decode"):
            time.sleep(0.02)
            if fails:
                raise OSError

    def shielded(fails):
        with contextlib.suppress(OSError):
            work(fails)

    threads = [threading.Thread(target=shielded, args=(n,)) for n in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(clock.seconds()) == ["read", "decode"]
    assert clock.seconds()["decode"] >= 0.04
    assert clock.seconds()["read"] == 0
    assert len(clock.busy()) == 2


def test_sleeping_is_not_being_busy():
    """A worker's time is what it computes, not what it waits."""
    clock = Clock()
    with clock.worker():
        time.sleep(0.05)
        waited = time.thread_time()
        while time.thread_time() < waited + 0.02:
            pass
    (busy,) = clock.busy().values()
    assert 0.02 <= busy < 0.05


def measured(busy=(1.0, 1.0), device="cpu", **stages):
    """Ten seconds of a run on as many workers as `busy` has."""
    return Timing(stages=stages, busy=busy, images=100, elapsed=10.0, device=device)


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (
            measured(forward=16.0, decode=3.0),
            (
                "bound by the network: 2 of 2 threads keep a core busy; "
                "more cores or a CUDA GPU would help"
            ),
        ),
        (
            measured(decode=15.0, forward=2.0, device="cuda"),
            "bound by decoding: 2 of 2 threads keep a core busy; more cores would help",
        ),
        (
            measured(busy=(0.2, 0.3), forward=18.0, device="cuda"),
            (
                "bound by the GPU, for which the threads wait; a faster one, or "
                "--precision bfloat16, would help"
            ),
        ),
        (
            measured(busy=(0.1, 0.1), read=17.0, forward=2.0),
            (
                "bound by reading the files: 0 of 2 threads keep a core busy; a faster "
                "disk, or more threads (--workers) would help"
            ),
        ),
        (
            measured(busy=(0.5, 0.5), forward=18.0),
            (
                "bound by the network, on cores that others use too: the threads got "
                "50 % of 2 cores"
            ),
        ),
    ],
)
def test_the_bottleneck_is_named_with_what_would_help(timing, expected):
    """Busy threads, a waiting GPU, a slow disk and a shared machine are told apart."""
    assert timing.bottleneck() == expected


def test_shares_are_of_the_workers_time_and_sorted():
    """Twenty seconds of two workers: 16 of them are 80 per cent."""
    shares = measured(forward=16.0, decode=3.0, start=5.0).shares()
    assert list(shares)[:2] == ["forward", "decode"]
    assert set(shares) == set(WORK)
    assert shares["forward"] == pytest.approx(0.8)
    assert measured(forward=16.0).describe().startswith("forward 80 %, read 0 %")


def test_nothing_computed_is_no_division_by_zero():
    """A run that found all rows in the cache has no speed and no shares."""
    idle = Timing.of(Clock(), images=0, elapsed=0.0)
    assert idle.speed == 0
    assert set(idle.shares().values()) == {0.0}
