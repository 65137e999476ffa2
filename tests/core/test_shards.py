"""Shards: every image in one part, and there it stays."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import DataError, SpecError
from featcache.core.manifest import Manifest
from featcache.core.shards import (
    Shard,
    ShardRecord,
    image_parts,
    parts,
    set_pattern,
)
from featcache.core.splits import hashed_splits

NAMES = st.lists(
    st.binary(min_size=1, max_size=9).filter(lambda p: not p.endswith(b"\0")),
    min_size=1,
    unique=True,
)


def manifest_of(count: int) -> Manifest:
    paths = np.array([f"{n % 3}/{n:06d}.jpg".encode() for n in range(count)])
    numbers = np.arange(count)
    return Manifest(
        root=Path("photos"),
        classes=("a", "b", "c"),
        paths=paths,
        labels=(numbers % 3).astype(np.int32),
        splits=(numbers % 5 == 0).astype(np.uint8),
        sizes=numbers + 1,
        mtimes_ns=numbers + 7,
    )


@given(names=NAMES, more=NAMES, count=st.integers(1, 9))
def test_a_part_follows_from_the_path_alone(names, more, count):
    """From 1 to n, whatever else is there; of 2 n parts two make up one."""
    own = parts(np.array(names), count)
    assert ((own >= 1) & (own <= count)).all()
    among = parts(np.array(names + more), count)
    assert (among[: len(names)] == own).all()
    assert ((parts(np.array(names), 2 * count) + 1) // 2 == own).all()


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_parts_are_the_whole(count):
    """Each row is in one part, in the whole's order, with all of its columns."""
    whole = manifest_of(500)
    cut = [Shard(i, count).take(whole) for i in range(1, count + 1)]
    assert sum(map(len, cut)) == 500
    for part in cut:
        assert part.classes == whole.classes
        assert (np.diff(part.sizes) > 0).all()
        for name, column in part.columns().items():
            if name != "classes":
                assert (column == whole.columns()[name][part.sizes - 1]).all()
    assert sorted(np.concatenate([p.sizes for p in cut])) == list(whole.sizes)


def test_parts_are_of_about_one_size_and_have_each_split():
    """The hash is another one than that which holds out val."""
    whole = manifest_of(8000)
    splits = hashed_splits(whole.paths, whole.labels)
    own = parts(whole.paths, 5)
    assert np.abs(np.bincount(own)[1:] - 1600).max() < 150
    for part in range(1, 6):
        assert 0.15 < splits[own == part].mean() < 0.25


@pytest.mark.parametrize("text", ["0/4", "5/4", "0/0"])
def test_there_is_no_such_part(text):
    """Counted from 1, as people count; the message says so."""
    with pytest.raises(SpecError, match=rf"no part {text}: parts are counted from 1"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["", "3", "3/", "a/4", "-1/4", "1/4/2", "3 of 4"])
def test_a_text_that_names_no_part(text):
    """With what was expected."""
    with pytest.raises(SpecError, match="is no part; expected I/N"):
        Shard.parse(text)


def test_an_empty_part_is_an_error():
    """Not a cache without rows."""
    pair = manifest_of(2)
    empty = min(set(range(1, 9)) - set(parts(pair.paths, 8).tolist()))
    with pytest.raises(DataError, match=r"none of the 2 images .* fewer parts"):
        Shard(empty, 8).take(pair)


def test_a_record_is_read_as_written():
    """And differs where the whole differs."""
    whole = manifest_of(40)
    record = ShardRecord.of(Shard(2, 3), whole)
    assert ShardRecord.read({"shard": record.to_json()}) == record
    assert record.shard == Shard(2, 3)
    assert ShardRecord.read({}) is None
    assert record.whole != ShardRecord.of(Shard(2, 3), manifest_of(41)).whole


@pytest.mark.parametrize(
    "change", [{"index": 9}, {"count": "4"}, {"whole": 3}, {"images": None}, {"x": 1}]
)
def test_a_record_that_is_none_is_refused(change):
    """It may come from elsewhere."""
    fields = ShardRecord.of(Shard(2, 3), manifest_of(9)).to_json() | change
    with pytest.raises(ValueError, match="shard of its provenance is"):
        ShardRecord.read({"shard": fields})


def test_the_pattern_of_a_set_finds_its_files(tmp_path):
    """Also where the name has characters of patterns."""
    for name in ("odd[1]-part-1-of-2.h5", "odd[1]-part-2-of-2.h5", "odd[1].h5"):
        (tmp_path / name).touch()
    pattern = set_pattern(tmp_path / "odd[1]-part-2-of-2.h5")
    assert [p.name for p in sorted(tmp_path.glob(pattern.name))] == [
        "odd[1]-part-1-of-2.h5",
        "odd[1]-part-2-of-2.h5",
    ]


@dataclass(frozen=True)
class Tars:
    """An index of files with some images each."""

    names: tuple[str, ...]
    numbers: np.ndarray

    def place(self, sample_index: int, path: str) -> Path:
        return Path(f"{self.numbers[sample_index]}:{path}")

    def take(self, rows: np.ndarray) -> "Tars":
        return replace(self, numbers=self.numbers[rows])


def tars_of(count: int, images: int = 5) -> Manifest:
    """Return a manifest of tars with some images each."""
    names = tuple(f"{n:05d}.tar" for n in range(count))
    whole = manifest_of(count * images)
    numbers = np.repeat(np.arange(count, dtype=np.int32), images)
    paths = [f"{names[n]}/{i}.jpg".encode() for i, n in enumerate(numbers.tolist())]
    return replace(whole, paths=np.array(paths), index=Tars(names, numbers))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_images_of_a_tar_go_together(count):
    """Each part has whole files, finds its images in them, and all are the whole."""
    whole = tars_of(60)
    cut = [Shard(i, count).take(whole) for i in range(1, count + 1)]
    held = [{path.split(b"/")[0] for path in part.paths.tolist()} for part in cut]
    assert sum(map(len, held)) == len(set.union(*held)) == 60
    assert sum(map(len, cut)) == len(whole)
    expected = {whole.file(row) for row in range(len(whole))}
    assert {part.file(row) for part in cut for row in range(len(part))} == expected
    for part in cut:
        assert (np.diff(part.sizes) > 0).all()  # in the order of the whole


def test_another_tar_moves_no_image():
    """As with images: which part it goes to follows from its own name."""
    few, more = tars_of(60), tars_of(90)
    own = image_parts(few, 4)
    assert (image_parts(more, 4)[: len(few)] == own).all()
    assert len(np.unique(own)) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_few_tars_are_cut_image_by_image(count):
    """Rather than that a part has none."""
    whole = tars_of(count, images=300 // count)
    own = image_parts(whole, 4)
    assert (own == parts(whole.paths, 4)).all()
    assert np.bincount(own)[1:].min() > 40
