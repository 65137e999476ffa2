"""Features larger than memory: every row once, every class in each window, bounded."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.features import Features, StoredFeatures
from featcache.core.resources import Resources
from featcache.core.specs import SgdSpec
from featcache.train.feeding import WindowFeed
from featcache.train.sgd import fit_sgd, fit_sgd_many
from featcache.train.windows import Plan, plan_windows
from tests.train.blobs import blobs


class Memory:
    """Rows that are in memory, as if they were in a file."""

    views = 1

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.most, self.total = X, 0, 0
        self.embed_dim, self.dtype = X.shape[1], X.dtype

    def take(self, rows):
        raise AssertionError("all of it would be in memory")

    def read(self, rows, out):
        self.most, self.total = max(self.most, len(rows)), self.total + len(rows)
        out[:] = self.X[rows]


def sorted_blobs(n: int, classes: int, **how) -> Features:
    """Features class after class, as in a cache."""
    made = blobs(n, classes, **how)
    order = np.argsort(made.y, kind="stable")
    return Features(made.X[order], made.y[order], made.sample_index)


def stored(features: Features) -> StoredFeatures:
    """The same features, not in memory."""
    return StoredFeatures(Memory(features.X), features.y, features.sample_index)


@given(
    n=st.integers(1, 500),
    windows=st.sampled_from([2, 4, 16]),
    block=st.integers(1, 20),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_an_epoch_visits_every_row_once(n, windows, block, batch_size, seed):
    """And only its last batch is smaller than the others."""
    X = np.arange(n, dtype=np.float32)[:, None]
    features = Features(X, np.arange(n, dtype=np.int32), np.arange(n))
    spec = SgdSpec(epochs=2, batch_size=batch_size, seed=seed)
    with WindowFeed(stored(features), Plan(n, windows, block), spec) as feed:
        for epoch in range(2):
            seen, ragged = [], []
            for rows, y, order in feed.epoch(epoch):
                assert np.array_equal(rows[order, 0], y[order])
                seen.append(y[order])
                ragged.append(len(order) % batch_size)
            assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(n))
            assert not any(ragged[:-1])


def test_each_window_has_its_share_of_each_class():
    """Of a file sorted by class, and in other blocks each epoch."""
    n, classes = 20_000, 10
    y = np.sort(np.arange(n) % classes)
    plan = Plan(n, windows=8, block=16)
    first, second = plan.deal(0, 0), plan.deal(0, 1)
    for starts in first:
        rows = (starts[:, None] + np.arange(plan.block)).ravel()
        counts = np.bincount(y[rows], minlength=classes)
        assert counts.min() >= 0.9 * n / classes / plan.windows
    assert not np.array_equal(first[0], second[0])
    assert all(
        np.array_equal(a, b) for a, b in zip(first, plan.deal(0, 0), strict=True)
    )


def test_what_fits_has_no_windows():
    """And keeps the order that it always had."""
    features = blobs(100, 3)
    told = {"classes": 3, "batch_size": 4}
    assert plan_windows(features, **told, memory=features.nbytes) is None
    plan = plan_windows(features, **told, memory=features.nbytes - 1)
    assert plan is not None
    assert plan.windows == 4
    given = plan_windows(features, **told, memory=1, resident=features.nbytes)
    assert given is None


@pytest.mark.parametrize("share", [4, 16])
def test_two_buffers_stay_within_the_memory(share):
    """Whatever the sizes are."""
    features = Features(
        np.broadcast_to(np.float32(0), (100_000, 512)),
        np.zeros(100_000, np.int32),
        np.arange(100_000),
    )
    memory = features.nbytes // share
    plan = plan_windows(features, classes=100, batch_size=256, memory=memory)
    assert 2 * (plan.capacity + 256) * 512 * 4 <= memory


@pytest.mark.parametrize("standardize", ["none", "zscore", "l2"])
def test_accuracy_is_that_of_the_full_shuffle(standardize):
    """On a file sorted by class, which is the order of every cache."""
    train = sorted_blobs(4000, 10, noise=2.0, dim=30)
    val = blobs(2000, 10, seed=3, noise=2.0, dim=30)
    lr = 1.0 if standardize == "l2" else 0.01
    accuracies: list[list[float]] = []
    for memory in (train.nbytes, train.nbytes // 10):
        fitted = [
            fit_sgd(
                stored(train) if memory < train.nbytes else train,
                val,
                classes=10,
                spec=SgdSpec(
                    lr=lr, epochs=3, batch_size=16, seed=seed, standardize=standardize
                ),
                resources=Resources(memory=memory),
            )
            for seed in range(4)
        ]
        accuracies.append([f.history[-1].val_accuracy for f in fitted])
    whole, windows = map(np.mean, accuracies)
    assert whole > 0.5
    assert windows == pytest.approx(whole, abs=0.012)  # a deviation of 0.01 a seed
    assert "each epoch read them in" in fitted[0].notes[0]


def test_half_precision_and_many_heads_are_trained_in_windows():
    """In the stored dtype, each head as if it were alone."""
    train = blobs(3000, 3)
    half = Features(train.X.astype(np.float16), train.y, train.sample_index)
    specs = [SgdSpec(epochs=2, batch_size=16, lr=lr) for lr in (0.01, 0.001)]
    how = {"classes": 3, "resources": Resources(memory=half.nbytes // 4)}
    together = fit_sgd_many(stored(half), None, specs=specs, **how)
    for spec, found in zip(specs, together, strict=True):
        alone = fit_sgd(stored(half), None, spec=spec, **how)
        assert np.allclose(found.head.weight, alone.head.weight, atol=1e-6)


def test_an_error_of_the_disk_is_not_lost_in_a_thread():
    """It ends the training."""
    features = stored(blobs(1000, 3))

    def fail(rows, out):
        raise OSError("no disk")

    features._source.read = fail
    with pytest.raises(OSError, match="no disk"):
        fit_sgd(
            features,
            None,
            classes=3,
            spec=SgdSpec(),
            resources=Resources(memory=features.nbytes // 4),
        )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("files", [1, 4])
def test_memory_is_bounded(tmp_path, files):
    """Files of 160 MB with 40 MB: no more than these are taken at any time."""
    script = """
        import re, sys
        from pathlib import Path
        import numpy as np
        from featcache.core.features import Features, StoredFeatures
        from featcache.core.resources import Resources
        from featcache.core.training_specs import SgdSpec
        from featcache.store.rows import FileRows, PartedRows
        from featcache.train.sgd import fit_sgd

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) << 10

        n, dim, files = 20_000, 2048, int(sys.argv[2])
        path = Path(sys.argv[1])
        with path.open("wb") as file:
            file.truncate(4 * n * dim)  # zeros that take no disk
        X = np.memmap(path, np.float32, "r", shape=(n, dim))
        y = (np.arange(n) * 4 // n).astype(np.int32)
        def part():
            with path.open("rb") as file:
                return FileRows(path, file.fileno(), 0, X)

        rows = part()
        if files > 1:  # rows fall to any of them, as those of hashed parts
            of = np.random.default_rng(0).integers(files, size=n)
            rows = PartedRows([part() for _ in range(files)], of, np.arange(n))
        train = StoredFeatures(rows, y, np.arange(n))
        val = StoredFeatures(rows, y[:5000], np.arange(5000))
        spec = SgdSpec(epochs=2, batch_size=256, standardize="zscore")
        small = Features(np.zeros((9, dim), np.float32), y[:9], np.arange(9))
        fit_sgd(small, small, classes=4, spec=spec)  # what BLAS takes is taken
        before = peak()
        fit_sgd(train, val, classes=4, spec=spec, resources=Resources(memory=40 << 20))
        print((peak() - before) / 2**20)
    """
    done = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(script)),
            *(str(tmp_path / "features"), str(files)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) < 60  # and 4 MiB blocks in float64, of zscore
