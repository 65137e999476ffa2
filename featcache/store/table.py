"""What one cache file and several files read as one have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from featcache.core.displays import Displayed, Told
from featcache.core.errors import SpecError
from featcache.core.features import Features, RowSource, StoredFeatures
from featcache.core.layers import MapShape
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.metrics import Labels
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.store.told import cache_told

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from featcache.store.frames import Frame
    from featcache.store.torch_dataset import FeatureDataset

MANIFEST = ("classes", "paths", "labels", "splits", "sizes", "mtimes_ns")


class FeatureTable(Displayed, ABC):
    """N rows: a feature, a label, a split, a path, a digest and a status each."""

    path: Path
    """The file; of several the first, or their pattern."""

    columns: Mapping[str, npt.NDArray[Any]]
    """By dataset name; the features of several files are had from `take` alone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _told(self) -> Told:
        return cache_told(self.path, self.spec, len(self), self.columns)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; arrays handed out before stay readable."""

    @abstractmethod
    def check(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Check every digest and refuse what is damaged.

        Parameters
        ----------
        advance : callable
            Told how many more rows are checked.

        Raises
        ------
        CacheCorruptError
            Naming every row that is wrong.
        """

    @abstractmethod
    def take_views(self, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
        """Return the first views of some rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers, in any order.
        count : int
            v, how many views of each row, at most V.

        Returns
        -------
        ndarray, shape (n, v, D)
            In the stored dtype; beyond view 0, NaN in rows of val and test.
        """

    @property
    @abstractmethod
    def source(self) -> RowSource:
        """The features by row; good when the cache is closed, too."""

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the features of some rows: those of view 0.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers, in any order.

        Returns
        -------
        ndarray, shape (n, D)
            In the stored dtype.
        """
        return self.take_views(rows, 1)[:, 0]

    @property
    @abstractmethod
    def spec(self) -> FeatureSpec:
        """What made the features: the identity of the cache."""

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Versions, host, times: recorded, not identity."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """C class names in label order."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """D; of maps ``c * h * w``."""

    @property
    def map_shape(self) -> MapShape | None:
        """(c, h, w) of the maps that a row holds; None where it holds features."""
        return self.spec.map_shape

    @property
    def name(self) -> str:
        """A short name, fit for a file's."""
        return self.path.stem

    @property
    def fingerprint(self) -> str:
        """The sha256 of the spec."""
        return self.spec.fingerprint

    @property
    def labels(self) -> Labels:
        """Label of each row, int32 (N,)."""
        return self.columns["labels"]

    @property
    def splits(self) -> npt.NDArray[np.uint8]:
        """Number of each row's split in ``("train", "val", "test")``, uint8 (N,)."""
        return self.columns["splits"]

    @property
    def paths(self) -> npt.NDArray[np.bytes_]:
        """Path of each row's image, relative to the data folder, bytes (N,)."""
        return self.columns["paths"]

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        """`Status` of each row, uint8 (N,)."""
        return self.columns["status"]

    @property
    def skipped(self) -> int:
        """How many rows have no feature, because their image could not be used."""
        return int((self.status != Status.OK).sum())

    def rows(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """Return the rows of a split that have a feature.

        Parameters
        ----------
        split : {"train", "val", "test"}, optional
            All rows without it.

        Returns
        -------
        ndarray of int64, shape (n,)
            Rising; rows of unusable images are left out.

        Raises
        ------
        SpecError
            When the name is none of a split.
        """
        if split is not None and split not in SPLITS:
            raise SpecError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")
        chosen = self.status == Status.OK
        if split is not None:
            chosen &= self.splits == SPLITS.index(split)
        return np.flatnonzero(chosen)

    def _with_features(self, split: str | None) -> npt.NDArray[np.int64]:
        self.spec.require_features(shown(self.path))
        return self.rows(split)

    def features(self, split: str | None = None) -> Features:
        """Return the features of a split; rows of unusable images are left out.

        Parameters
        ----------
        split : {"train", "val", "test"}, optional
            All rows without it.

        Returns
        -------
        Features
            X (n, D) in the stored dtype, of several views the first (`views` has
            all); y (n,) int32. X is the mapped file itself, read when it is used; a
            copy where an unusable image is left out between, and of several files.

        Raises
        ------
        CacheMismatchError
            When rows are maps: see `featcache.store.maps.StoredMaps`.
        SpecError
            When the name is none of a split.
        """
        rows = self._with_features(split)
        return StoredFeatures(self.source, self.labels[rows], rows)

    def views(self, split: str = "train") -> npt.NDArray[Any]:
        """Return all views of a split; rows of unusable images are left out.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Of train, view 0 is the val view, and the others are random ones.

        Returns
        -------
        ndarray, shape (n, V, D)
            In the stored dtype and the order of `features`; mapped or copied as
            there. V is 1 for val and test, which have view 0 alone.

        Raises
        ------
        SpecError
            When the name is none of a split.
        """
        return self.take_views(
            self.rows(split), self.spec.views if split == SPLITS[TRAIN] else 1
        )

    def dataset(self, split: str | None = None) -> "FeatureDataset":
        """Return the features of a split as a torch data set.

        Parameters
        ----------
        split : {"train", "val", "test"}, optional
            All rows without it.

        Returns
        -------
        FeatureDataset
            Yields a float32 tensor (D,) and the label as an int; see there.

        Raises
        ------
        SpecError
            When the name is none of a split.
        """
        from featcache.store.torch_dataset import FeatureDataset

        rows = self._with_features(split)
        return FeatureDataset(self, rows, self.labels[rows])

    def frame(self, rows: npt.NDArray[np.int64]) -> "Frame":
        """Return rows with everything that an export says of them.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers.

        Returns
        -------
        Frame
            Features, paths, splits, labels and names of classes.
        """
        from featcache.store.frames import Frame

        return Frame(
            self.take(rows),
            self.paths[rows],
            self.splits[rows],
            self.labels[rows],
            self.classes,
            rows,
        )

    def to_arrow(self, split: str | None = None) -> "pa.Table":
        """Return a split as an Arrow table, features as one fixed-size list column.

        Parameters
        ----------
        split : {"train", "val", "test"}, optional
            All rows without it.

        Returns
        -------
        pyarrow.Table
            See `featcache.store.frames.arrow_table`.

        Raises
        ------
        DependencyError
            When pyarrow is not installed.
        SpecError
            When the name is none of a split.
        """
        from featcache.store.frames import arrow_table

        return arrow_table(self.frame(self._with_features(split)))

    def to_pandas(self, split: str | None = None) -> "pd.DataFrame":
        """Return a split as a pandas frame, one column a feature.

        Parameters
        ----------
        split : {"train", "val", "test"}, optional
            All rows without it.

        Returns
        -------
        pandas.DataFrame
            See `featcache.store.frames.pandas_frame`.

        Raises
        ------
        DependencyError
            When pandas is not installed.
        SpecError
            When the name is none of a split.
        """
        from featcache.store.frames import pandas_frame

        return pandas_frame(self.frame(self._with_features(split)))

    def manifest_columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns that came from the folder.

        Returns
        -------
        dict of str to ndarray
            As `featcache.core.manifest.Manifest.columns` gives them.
        """
        return {name: self.columns[name] for name in MANIFEST}
