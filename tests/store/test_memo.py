"""The memo: features by the sha256 of an image's bytes, in a folder of caches."""

import numpy as np
import pytest

from featcache.core.errors import StorageError
from featcache.store.memo import OWN, Memo
from featcache.store.opening import open_cache
from tests.store.conftest import PROVENANCE, make_content, make_spec


@pytest.fixture
def rows():
    """Twenty features and digests."""
    return make_content(20).rows


def add(folder, spec, rows, at=slice(None)):
    memo = Memo(folder, spec)
    memo.add(rows["features"][at], rows["digests"][at], PROVENANCE)
    memo.close()


def known(folder, spec, rows):
    """Return the numbers of the rows that a memo knows, all equal to what was added."""
    memo = Memo(folder, spec)
    found = [memo.lookup(digest.tobytes()) for digest in rows["digests"]]
    for feature, expected in zip(found, rows["features"], strict=True):
        assert feature is None or np.array_equal(feature, expected)
    memo.close()
    return [i for i, feature in enumerate(found) if feature is not None]


def test_what_was_added_is_found(tmp_path, spec, rows):
    """By whoever opens the folder next; each addition is one file more."""
    assert known(tmp_path / "memo", spec, rows) == []
    assert not (tmp_path / "memo").exists()
    add(tmp_path / "memo", spec, rows, slice(0, 12))
    add(tmp_path / "memo", spec, rows, slice(10, 15))
    assert known(tmp_path / "memo", spec, rows) == list(range(15))
    files = list((tmp_path / "memo" / OWN).iterdir())
    assert len(files) == 2
    for file in files:
        open_cache(file).close()  # whole, and every digest right


def test_other_settings_are_another_memo(tmp_path, spec, rows):
    """In the same folder."""
    other = make_spec(weights_sha256="6" * 64)
    add(tmp_path, spec, rows)
    assert known(tmp_path, other, rows) == []
    add(tmp_path, other, rows, slice(0, 3))
    assert known(tmp_path, other, rows) == [0, 1, 2]
    assert len(known(tmp_path, spec, rows)) == 20


def test_caches_of_the_folder_are_read_and_left_alone(tmp_path, spec, content):
    """All but the damaged row, and what is no cache is passed over."""
    path = content.complete(tmp_path / "cache.h5")
    (tmp_path / "notes.h5").write_bytes(b"not a cache")
    before = path.read_bytes()
    expected = [i for i in range(20) if i != 3]
    assert known(tmp_path, spec, content.rows) == expected
    assert path.read_bytes() == before
    assert not (tmp_path / OWN).exists()


def test_a_damaged_block_is_not_known(tmp_path, spec, rows):
    """Its images are computed again; the others are still there."""
    add(tmp_path, spec, rows)
    (file,) = (tmp_path / OWN).iterdir()
    with open_cache(file) as cache:
        place = cache.header.columns["features"].row_offset(0)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert len(known(tmp_path, spec, rows)) == 20 - 8


def test_images_with_equal_bytes_are_kept_once(tmp_path, spec, rows):
    """Added together."""
    add(tmp_path, spec, rows, [4, 4, 5])
    (file,) = (tmp_path / OWN).iterdir()
    with open_cache(file) as cache:
        assert len(cache) == 2


def test_a_failure_leaves_no_file(tmp_path, spec, rows, monkeypatch):
    """A full disk costs the addition, and says so."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featcache.store.writer.write_at", full)
    with pytest.raises(StorageError, match="No space left"):
        add(tmp_path, spec, rows)
    assert list((tmp_path / OWN).iterdir()) == []


def test_a_file_is_no_folder(tmp_path, spec):
    """Named, before anything is computed."""
    (tmp_path / "a.h5").touch()
    with pytest.raises(StorageError, match="is a file; expected a folder"):
        Memo(tmp_path / "a.h5", spec)
