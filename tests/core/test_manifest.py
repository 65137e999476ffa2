"""The manifest: samples as columns, names of any bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.core.manifest import (
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    Manifest,
    same_samples,
)


@pytest.fixture
def manifest() -> Manifest:
    """Three samples of two classes."""
    return Manifest(
        root=Path("photos"),
        classes=("ants", "caf\udce9"),
        paths=np.array([b"train/ants/a.jpg", b"train/caf\xe9/b.jpg", b"val/ants/c"]),
        labels=np.array([0, 1, 0], np.int32),
        splits=np.array([TRAIN, TRAIN, VAL], np.uint8),
        sizes=np.array([10, 20, 30]),
        mtimes_ns=np.array([1, 2, 3]),
    )


def test_a_sample_has_a_file(manifest):
    """Root and relative path; bytes that are no UTF-8 survive."""
    assert len(manifest) == 3
    assert manifest.file(1) == Path("photos/train/caf\udce9/b.jpg")


def test_columns_are_what_a_cache_stores(manifest):
    """One row a sample, and the names of the classes as bytes."""
    columns = manifest.columns()
    assert columns.pop("classes").tolist() == [b"ants", b"caf\xe9"]
    assert list(columns) == ["paths", "labels", "splits", "sizes", "mtimes_ns"]
    assert all(len(values) == len(manifest) for values in columns.values())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"root": Path("moved")}, True, id="moved folder"),
        pytest.param({"classes": ("ants", "bees")}, False, id="class renamed"),
        pytest.param({"labels": np.array([0, 0, 0], np.int32)}, False, id="label"),
        pytest.param({"splits": np.zeros(3, np.uint8)}, False, id="split"),
        pytest.param({"sizes": np.array([10, 20, 31])}, False, id="size"),
        pytest.param({"mtimes_ns": np.array([1, 2, 4])}, False, id="time"),
        pytest.param({"paths": np.array([b"a", b"b"])}, False, id="sample gone"),
    ],
)
def test_same_samples(manifest, change, expected):
    """Two manifests are the same when every column is; the root is none."""
    other = replace(manifest, **change)
    assert same_samples(manifest.columns(), other.columns()) == expected


def test_fewer_columns_are_not_the_same(manifest):
    """A column that is missing is a difference."""
    columns = manifest.columns()
    fewer = {k: v for k, v in columns.items() if k != "sizes"}
    assert not same_samples(columns, fewer)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, "3 images (train 2, val 1) of 2 classes", id="images"),
        pytest.param(
            {"ignored": {"other file": 1, "hidden file": 2}},
            "3 images (train 2, val 1) of 2 classes; "
            "ignored: 1 other file, 2 hidden files",
            id="and others",
        ),
    ],
)
def test_describe(manifest, change, expected):
    """One line: how many images, of which splits and classes, what else."""
    assert replace(manifest, **change).describe() == expected


def test_splits_have_numbers():
    """Position in the list, which is part of the format."""
    assert SPLITS == ("train", "val", "test")
    assert [SPLITS.index(name) for name in SPLITS] == [TRAIN, VAL, TEST]
