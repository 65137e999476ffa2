"""Rows of a cache as an Arrow table and a pandas frame."""

import sys

import numpy as np
import pytest

from featcache.core.errors import DependencyError

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pandas")


def test_an_arrow_table_has_the_rows(cache):
    """Words as dictionaries, features as one list column that is not copied."""
    table, val = cache.to_arrow("val"), cache.features("val")
    assert table.column_names == ["path", "split", "label", "class_name", "features"]
    assert table.schema.field("features").type == pa.list_(pa.float32(), 512)
    features = table["features"].chunk(0).values.to_numpy()
    assert np.shares_memory(features, cache.columns["features"])
    assert np.array_equal(features.reshape(val.X.shape), val.X)
    assert table["label"].to_pylist() == val.y.tolist()
    assert set(table["split"].to_pylist()) == {"val"}
    assert table["path"].to_pylist()[-1] == "\\xff.jpg"


def test_a_pandas_frame_has_the_rows(cache):
    """The index is the row of the cache; the bad one is left out."""
    frame, rows = cache.to_pandas(), cache.features()
    assert len(frame) == len(cache) - 1
    assert frame.index.tolist() == rows.sample_index.tolist()
    assert 3 not in frame.index
    assert np.array_equal(frame.loc[:, "f0":].to_numpy(), rows.X)
    assert frame.columns[4] == "f0"
    assert frame.columns[-1] == "f511"
    assert frame["class_name"][5] == "caf\\xe9"
    assert frame["split"].value_counts().to_dict() == {"train": 14, "val": 5, "test": 0}


@pytest.mark.parametrize(
    ("library", "method"), [("pyarrow", "to_arrow"), ("pandas", "to_pandas")]
)
def test_a_library_that_is_missing_is_named(cache, monkeypatch, library, method):
    """With what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyError, match=rf"{library}.*featcache\[export\]"):
        getattr(cache, method)()
