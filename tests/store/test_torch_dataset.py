"""Rows of a cache as a torch data set, and what of it crosses to other processes."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from featcache.core.errors import CacheMismatchError, CacheNotFoundError, SpecError
from featcache.store.opening import open_cache


@pytest.fixture
def parted(contents, tmp_path):
    """Two files that are read as one."""
    contents(20).complete(tmp_path / "a.h5")
    with open_cache([tmp_path / "a.h5", tmp_path / "a.h5"]) as opened:
        yield opened


def test_a_split_is_the_mapped_file_where_its_rows_lie_together(cache, content):
    """No copy of val; train lacks a row in between, so that it is one."""
    val, train = cache.features("val"), cache.features("train")
    assert np.shares_memory(val.X, cache.columns["features"])
    assert not np.shares_memory(train.X, cache.columns["features"])
    assert not val.X.flags.writeable
    for found in (val, train):
        assert np.array_equal(found.X, content.rows["features"][found.sample_index])


@pytest.mark.parametrize("rows", [[3, 1, 5], [5, 4, 3], [2, 2, 4], [4, 5, 6], [7], []])
def test_rows_are_taken_in_the_order_asked_for(cache, parted, rows):
    """Also where first and last look like a run."""
    rows = np.array(rows, np.int64)
    for table in (cache, parted):
        every = table.take(np.arange(len(table)))
        assert np.array_equal(table.take(rows), every[rows])


def test_samples_are_float32_tensors_and_ints(cache):
    """One by one, from the end, and no further than there are."""
    data, val = cache.dataset("val"), cache.features("val")
    pairs = list(data)
    assert len(pairs) == len(data) == len(val)
    feature, label = data[-1]
    assert feature.dtype == torch.float32
    assert type(label) is int
    assert np.array_equal(feature.numpy(), val.X[-1])
    assert [label for _, label in pairs] == val.y.tolist()
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(SpecError, match="unknown split"):
        cache.dataset("valid")


def test_a_batch_is_what_its_samples_are(cache):
    """__getitems__ in any order, with repetitions."""
    data = cache.dataset()
    order = [5, 2, 2, 9, 0]
    for (a, b), (c, d) in zip(
        data.__getitems__(order), (data[i] for i in order), strict=True
    ):
        assert torch.equal(a, c)
        assert b == d


def test_a_tensor_is_not_the_file(cache):
    """Training may write into it."""
    feature, _ = cache.dataset("val")[0]
    before = cache.features("val").X[0].copy()
    feature.zero_()
    assert np.array_equal(cache.features("val").X[0], before)


def loaded(data, **settings):
    """Return features and labels as a loader gives them, in order."""
    batches = list(DataLoader(data, batch_size=4, **settings))
    X, y = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return X, y


# Python 3.12 and newer warn of any fork in a process with threads, which torch has.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("workers", "start"),
    [
        (0, None),
        (2, "fork"),
        pytest.param(2, "spawn", marks=pytest.mark.slow),
    ],
)
def test_a_loader_gives_the_split(cache, parted, workers, start):
    """In this process and in others."""
    for table in (cache, parted):
        expected = table.features("train")
        X, y = loaded(
            table.dataset("train"), num_workers=workers, multiprocessing_context=start
        )
        assert np.array_equal(X, expected.X)
        assert np.array_equal(y, expected.y)


def test_what_is_sent_to_a_process_holds_no_rows(contents, tmp_path):
    """It is a place, and opened again there; two files alike."""
    for n in (100, 200):
        contents(n, seed=n).complete(tmp_path / f"{n}.h5")
    with open_cache(tmp_path / "100.h5") as cache:
        sent = pickle.dumps(cache)
        assert len(sent) < 1000
        again = pickle.loads(sent)
        assert np.array_equal(again.features().X, cache.features().X)
        again.close()
        assert len(pickle.dumps(cache.dataset())) < 10_000


def test_another_file_of_that_name_is_refused(contents, tmp_path):
    """In a process that opens it after it was replaced or removed."""
    path = contents(20).complete(tmp_path / "a.h5")
    with open_cache(path) as cache:
        sent = pickle.dumps(cache)
    contents(21).complete(path)
    with pytest.raises(CacheMismatchError, match="was replaced by another"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(CacheNotFoundError):
        pickle.loads(sent)
