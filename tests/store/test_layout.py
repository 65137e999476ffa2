"""The layout: plain HDF5 that any tool opens, equal for equal arguments."""

import io
import json
import time
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.blocks import block_rows
from featcache.store.layout import ALIGNMENT, Column, _SparseFile, compose

SIZES = pytest.mark.parametrize("n", [1, 2, 8, 9, 20, 700])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16"])


def composed(content, **provenance):
    """Compose the skeleton of a content."""
    return compose(content.spec, content.manifest.columns(), 512, provenance)


def test_equal_arguments_make_equal_bytes(content):
    """Nothing of the clock, the process or the memory gets into the file."""
    one = composed(content, began_ns=1)
    time.sleep(1.1)  # HDF5 counts seconds
    assert composed(content, began_ns=1) == one
    assert composed(content, began_ns=2) != one


@SIZES
@DTYPES
def test_columns_lie_apart_within_the_file(contents, n, dtype):
    """No column overlaps another or the headers; features start on a page."""
    skeleton = composed(contents(n, dtype=dtype))
    spans = sorted((c.offset, c.offset + c.nbytes) for c in skeleton.columns.values())
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert spans[-1][1] <= skeleton.length
    features = skeleton.columns["features"]
    assert features.offset % ALIGNMENT == 0
    assert skeleton.length == features.offset + features.nbytes


@SIZES
@DTYPES
def test_other_tools_read_the_same(contents, tmp_path, n, dtype):
    """h5py alone finds every column contiguous, unfiltered and equal."""
    content = contents(n, dtype=dtype)
    path = content.complete(tmp_path / "cache.h5")
    with h5py.File(path) as file:
        for name, values in {**content.manifest.columns(), **content.rows}.items():
            dataset = file[name]
            assert (dataset.chunks, dataset.compression) == (None, None)
            assert np.array_equal(dataset[()], values)
        assert file["journal"].shape == (-(-n // block_rows(n)), 32)
        assert set(file) == {*content.manifest.columns(), *content.rows, "journal"}


def test_names_are_texts_to_other_tools(content, path):
    """Class names and paths read as UTF-8 strings; other bytes stay as they are."""
    with h5py.File(path) as file:
        assert file["classes"].asstr()[:2].tolist() == ["ants", "bees"]
        assert file["classes"][2] == b"caf\xe9"
        assert file["paths"].asstr()[0] == "00000.jpg"
        assert file["paths"][-1] == b"\xff.jpg"
        assert file["paths"].id.get_type().get_cset() == h5py.h5t.CSET_UTF8


def test_attributes_say_what_made_the_file(content, path):
    """Format, identity and provenance, as texts and numbers."""
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"featcache"
        assert file.attrs["format_version"] == 1
        assert file.attrs["block_rows"] == 8
        assert file.attrs["fingerprint"].decode() == content.spec.fingerprint
        assert json.loads(file.attrs["spec"]) == content.spec.to_json()
        assert json.loads(file.attrs["provenance"])["weights"]["key"] == "k"


def test_headers_take_little_memory(contents):
    """Of a million rows only the pages with headers are composed."""
    content = contents(2)
    n = 1_000_000
    many = {
        name: values if name == "classes" else np.broadcast_to(values[:1], n)
        for name, values in content.manifest.columns().items()
    }
    skeleton = compose(content.spec, many, 512, {})
    assert sum(map(len, skeleton.pages.values())) < 100_000
    assert skeleton.length > n * 2048


def test_rows_have_positions():
    """Bytes from the start of the file, beyond 32 bits too."""
    column = Column(4096, np.dtype("f4"), (10**9, 512))
    assert column.row_offset(10**9) == 4096 + column.nbytes
    assert column.nbytes == 2048 * 10**9
    assert Column(7, np.dtype("u1"), (3,)).row_offset(2) == 9


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), st.integers(0, 9000), st.just(0)),
        st.tuples(st.just("seek"), st.integers(-50, 50), st.integers(1, 2)),
        st.tuples(st.just("write"), st.binary(max_size=5000)),
        st.tuples(st.just("read"), st.integers(0, 9000)),
        st.tuples(st.just("truncate"), st.integers(0, 9000)),
    ),
    max_size=12,
)


@given(steps=STEPS)
def test_a_sparse_file_is_a_file(steps):
    """Whatever is done to it, it answers as a file in memory."""
    sparse, real = _SparseFile(), io.BytesIO()
    assert [sparse.readable(), sparse.writable(), sparse.seekable()] == [True] * 3
    for name, *arguments in steps:
        if name == "seek":
            offset, whence = arguments
            if offset + (0, real.tell(), len(real.getvalue()))[whence] < 0:
                continue  # there is nothing before the start
        if name == "truncate":  # BytesIO does not grow by it
            here = real.tell()
            grown = arguments[0] - real.seek(0, io.SEEK_END)
            real.write(bytes(max(0, grown)))
            real.seek(here)
        answers = [getattr(file, name)(*arguments) for file in (sparse, real)]
        assert answers[0] == answers[1]
    whole = bytearray(sparse.length)
    for offset, page in sparse.pages().items():
        whole[offset : offset + len(page)] = page
    assert bytes(whole) == real.getvalue()
