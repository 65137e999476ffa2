"""Rows of features read past the map: the same bytes as the map has."""

import numpy as np
import pytest

from featcache.core.errors import StorageError
from featcache.store.rows import FileRows, PartedRows

N, D = 300, 6


@pytest.fixture(params=[np.float32, np.float16], ids=["float32", "float16"])
def stored(request, tmp_path) -> tuple[FileRows, np.ndarray]:
    """Rows in a file behind 64 bytes of something else."""
    X = np.random.default_rng(0).standard_normal((N, D)).astype(request.param)
    return file_rows(tmp_path / "rows", X), X


def file_rows(path, X) -> FileRows:
    path.write_bytes(bytes(64) + X.tobytes())
    mapped = np.memmap(path, X.dtype, "r", offset=64, shape=X.shape)
    with path.open("rb") as file:
        return FileRows(path, file.fileno(), 64, mapped)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(np.arange(N), id="all"),
        pytest.param(np.arange(5, 9), id="together"),
        pytest.param(np.arange(0), id="none"),
        pytest.param(np.array([7]), id="one"),
        pytest.param(np.delete(np.arange(100), [3, 4, 50]), id="gaps"),
        pytest.param(np.flatnonzero(np.arange(N) % 5), id="a fifth left out"),
        pytest.param(np.arange(0, N, 7), id="few"),
        pytest.param(np.array([250, 3, 4, 4, 0, 299]), id="any order"),
    ],
)
def test_rows_read_are_the_rows_mapped(stored, rows):
    """Whatever lies between them."""
    source, X = stored
    out = np.empty((len(rows), D), X.dtype)
    source.read(rows, out)
    assert np.array_equal(out, X[rows])
    assert np.array_equal(source.take(rows), X[rows])


def test_of_several_views_the_first_is_read(tmp_path):
    """(N, V, D) in the file, (n, D) in memory."""
    X = np.random.default_rng(0).standard_normal((20, 3, D)).astype(np.float32)
    source, out = file_rows(tmp_path / "rows", X), np.empty((5, D), np.float32)
    for rows in (np.arange(5, 10), np.arange(0, 10, 2)):
        source.read(rows, out)
        assert np.array_equal(out, X[rows, 0])


def test_rows_of_several_files_come_in_their_order(tmp_path):
    """Each from its own file."""
    X = np.random.default_rng(0).standard_normal((40, D)).astype(np.float32)
    part = np.random.default_rng(1).integers(0, 3, 40)
    row = np.array([(part[:i] == p).sum() for i, p in enumerate(part)])
    files = [file_rows(tmp_path / f"{p}", X[part == p]) for p in range(3)]
    source, rows = PartedRows(files, part, row), np.array([39, 0, 1, 2, 3, 17])
    out = np.empty((len(rows), D), np.float32)
    source.read(rows, out)
    assert np.array_equal(out, X[rows])
    assert np.array_equal(source.take(rows), X[rows])


def test_a_file_that_was_cut_off_is_an_error(stored, tmp_path):
    """Not rows of something else, and not a crash as a map would have."""
    source, X = stored
    with (tmp_path / "rows").open("rb+") as file:
        file.truncate(100)
    with pytest.raises(StorageError, match="rows ends too early"):
        source.read(np.arange(N), np.empty_like(X))
