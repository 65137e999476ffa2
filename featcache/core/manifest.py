"""The manifest: the ordered samples of a folder and their classes, as columns."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featcache.core.locations import Location, located
from featcache.core.metrics import Labels
from featcache.core.text import listed, plural

SPLITS = ("train", "val", "test")  # a sample's split is its number in this list
TRAIN, VAL, TEST = range(3)
_PER_SAMPLE = ("paths", "labels", "splits", "sizes", "mtimes_ns")


class Index(Protocol):
    """Knows where each image lies that has no file of its own."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files that hold the images, as images' paths begin with them."""

    @property
    def numbers(self) -> npt.NDArray[np.int32]:
        """Each image's file, as its place among the names, (N,)."""

    def place(self, sample_index: int, path: str) -> Location:
        """Return where the bytes of a sample lie.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.
        path : str
            Of the sample, as the manifest has it.

        Returns
        -------
        Path, Member or Cell
            Not looked at yet.
        """

    def take(self, rows: npt.NDArray[np.int64]) -> "Index":
        """Return the index of some of the samples.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Of the manifest.

        Returns
        -------
        Index
            Of n samples.
        """


@dataclass(frozen=True, eq=False)
class Manifest:
    """N samples as columns, about 60 bytes a sample beside its path.

    Rows are ordered by split, then class, then path bytes, so that equal folders
    give equal manifests on every machine; those of shards lie in the order of the
    shards and of the bytes in them, so that they are read from front to back.

    Parameters
    ----------
    root : Path or str
        The data folder, or its URL.
    classes : tuple of str
        C class names in label order; undecodable bytes as surrogates.
    paths : ndarray of bytes, shape (N,)
        Relative to root, with ``/``; any bytes but NUL.
    labels : ndarray of int32, shape (N,)
        In [0, C).
    splits : ndarray of uint8, shape (N,)
        Number of the split in `SPLITS`.
    sizes : ndarray of int64, shape (N,)
        Bytes of each file.
    mtimes_ns : ndarray of int64, shape (N,)
        Time of last change, nanoseconds.
    ignored : mapping of str to int
        What else lay in the folder, counted by kind.
    index : Index, optional
        Where the images lie that are no files below root.
    """

    root: Path | str
    classes: tuple[str, ...]
    paths: npt.NDArray[np.bytes_]
    labels: Labels
    splits: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int64]
    mtimes_ns: npt.NDArray[np.int64]
    ignored: Mapping[str, int] = field(default_factory=dict)
    index: Index | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, sample_index: int) -> Location:
        """Return where a sample's image lies.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.

        Returns
        -------
        Path, Member, Cell or Object
            Root and relative path, or the part of a shard.
        """
        path = os.fsdecode(self.paths[sample_index])
        if self.index is None:
            return located(self.root, path, int(self.sizes[sample_index]))
        return self.index.place(sample_index, path)

    def take(self, rows: npt.NDArray[np.int64]) -> "Manifest":
        """Return some of the samples, with the classes of all.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            In the order wanted.

        Returns
        -------
        Manifest
            Of n samples.
        """
        columns = {name: getattr(self, name)[rows] for name in _PER_SAMPLE}
        index = None if self.index is None else self.index.take(rows)
        return replace(self, **columns, index=index)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return what of the manifest a cache stores, by dataset name.

        Returns
        -------
        dict of str to ndarray
            ``classes`` (C,) and the per-sample columns (N,).
        """
        classes = np.array([os.fsencode(name) for name in self.classes], dtype="S")
        return {
            "classes": classes,
            "paths": self.paths,
            "labels": self.labels,
            "splits": self.splits,
            "sizes": self.sizes,
            "mtimes_ns": self.mtimes_ns,
        }

    def describe(self) -> str:
        """Return one line: how many images of which splits and classes, what else.

        Returns
        -------
        str
            For example ``'397 images (train 244, val 153) of 2 classes'``.
        """
        counts = np.bincount(self.splits, minlength=len(SPLITS))
        parts = ", ".join(
            f"{name} {count:,}"
            for name, count in zip(SPLITS, counts, strict=True)
            if count
        )
        line = (
            f"{plural(len(self), 'image')} ({parts}) "
            f"of {plural(len(self.classes), 'class')}"
        )
        if self.ignored:
            others = listed(plural(n, kind) for kind, n in self.ignored.items())
            line += f"; ignored: {others}"
        return line


def same_samples(
    a: Mapping[str, npt.NDArray[Any]], b: Mapping[str, npt.NDArray[Any]]
) -> bool:
    """Tell whether two manifests' columns are equal.

    Parameters
    ----------
    a, b : mapping of str to ndarray
        As `Manifest.columns` gives them.

    Returns
    -------
    bool
        True when every column has the same shape and values.
    """
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
