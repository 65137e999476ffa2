"""Several cache files read as one: the parts of a data set, or of a cluster's work."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.displays import Told, some
from featcache.core.errors import CacheMismatchError
from featcache.core.fingerprint import differences
from featcache.core.metrics import Labels
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.store.reader import FeatureCache
from featcache.store.rows import PartedRows
from featcache.store.sets import require_whole_set
from featcache.store.table import FeatureTable
from featcache.store.told import cache_told

_SHARED = ("paths", "splits", "sizes", "mtimes_ns", "digests", "status")

Indices = npt.NDArray[np.int64]


class PartedCache(FeatureTable):
    """Caches with one fingerprint, read as one, in the order of a manifest.

    Classes that differ are united by name and sorted by bytes, and labels renumbered;
    rows are ordered by split, label and path, as if one folder had been extracted. An
    image that stands in several files is taken once, but not one of a part that
    ``extract --shard`` made: such parts overlap with nothing, and all of them must be
    there.
    `features` are read where they are asked for, as copies.

    Parameters
    ----------
    parts : sequence of FeatureCache
        At least one; closed together with this.
    path : Path, optional
        For messages; the first part's without it.

    Raises
    ------
    CacheMismatchError
        When fingerprints differ, two parts disagree about an image, or they are not
        parts of one thing.
    CacheNotFoundError
        When one of the parts that ``extract --shard`` made is missing.
    """

    def __init__(self, parts: Sequence[FeatureCache], path: Path | None = None) -> None:
        self.parts = tuple(parts)
        self.path = path or parts[0].path
        for part in parts[1:]:
            _require_equal_specs(parts[0], part)
        self._apart = require_whole_set(parts)
        united = {k: np.concatenate([p.columns[k] for p in parts]) for k in _SHARED}
        classes, united["labels"] = _united_classes(parts)
        lengths = [len(p) for p in parts]
        number = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
        row = np.concatenate([np.arange(n) for n in lengths])
        self.repeated = 0
        """How many rows were left out, since an earlier one is of the same image."""
        chosen = self._chosen(united, number)
        self._part, self._row = number[chosen], row[chosen]
        self.columns: Mapping[str, npt.NDArray[Any]] = {
            "classes": classes,
            **{name: column[chosen] for name, column in united.items()},
        }

    def _chosen(
        self, united: Mapping[str, npt.NDArray[Any]], part: npt.NDArray[np.int32]
    ) -> Indices:
        """Return one row of each path, in a manifest's order."""
        rank = np.zeros(len(part), np.uint8)  # of equal paths, a usable row is first
        rank[united["status"] != Status.OK] = 1
        rank[united["status"] == Status.UNREADABLE] = 2
        paths = united["paths"]
        order = np.lexsort((part, rank, paths))
        again = np.zeros(len(order), bool)
        again[1:] = paths[order[1:]] == paths[order[:-1]]
        first = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))]
        self.repeated = int(again.sum())
        if self._apart and self.repeated:
            self._refuse_overlap(paths, part, first[again], order[again])
        self._require_agreement(united, part, first[again], order[again])
        kept = order[~again]
        keys = (paths[kept], united["labels"][kept], united["splits"][kept])
        chosen: Indices = kept[np.lexsort(keys)]
        return chosen

    def _refuse_overlap(
        self,
        paths: npt.NDArray[np.bytes_],
        part: npt.NDArray[np.int32],
        first: Indices,
        second: Indices,
    ) -> None:
        a, b = (self.parts[part[rows[0]]].path for rows in (first, second))
        raise CacheMismatchError(
            f"{shown(paths[first[0]])} is in {shown(a)} and in {shown(b)} "
            f"({self.repeated:,} images in all), but parts of a data set have no image "
            "in common; leave one of them out"
        )

    def _require_agreement(
        self,
        united: Mapping[str, npt.NDArray[Any]],
        part: npt.NDArray[np.int32],
        first: Indices,
        second: Indices,
    ) -> None:
        """Refuse two rows of one path that are of different images or places."""
        differ = {
            k: united[k][first] != united[k][second] for k in ("labels", "splits")
        }
        other = (united["digests"][first] != united["digests"][second]).any(axis=1)
        # A file that could not be read has no digest to disagree with.
        differ["images"] = other & (united["status"][second] != Status.UNREADABLE)
        for what, wrong in differ.items():
            if not wrong.any():
                continue
            at = int(np.flatnonzero(wrong)[0])
            a, b = (self.parts[part[rows[at]]].path for rows in (first, second))
            raise CacheMismatchError(
                f"{shown(united['paths'][first[at]])} has different {what} in "
                f"{shown(a)} and in {shown(b)} ({_count(wrong)} in all); bring one of "
                "them up to date with 'featcache extract', or leave it out"
            )

    def _told(self) -> Told:
        is_open = all(part.columns for part in self.parts)
        columns = self.columns if is_open else {}
        yield from cache_told(self.path, self.spec, len(self), columns)
        yield "files", some((p.path.name for p in self.parts), len(self.parts))

    def __len__(self) -> int:
        return len(self._part)

    def __reduce__(self) -> tuple[Any, ...]:
        return PartedCache, (self.parts, self.path)

    def close(self) -> None:
        """Let go of the files; arrays handed out before stay readable."""
        for part in self.parts:
            part.close()

    @property
    def spec(self) -> FeatureSpec:
        """What made the features: the identity of every part."""
        return self.parts[0].spec

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What all parts have in common, and when the first of them was begun."""
        first, *others = (part.provenance for part in self.parts)
        common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
        began = [int(p.get("began_ns", 0)) for p in (first, *others)]
        # Of equal fingerprints, each part's record of the weights is right.
        weights = first.get("weights", {})
        return {**common, "weights": weights, "began_ns": min(began)}

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names in label order: those of all parts."""
        return tuple(os.fsdecode(name) for name in self.columns["classes"].tolist())

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.parts[0].embed_dim

    @property
    def name(self) -> str:
        """The first part's, and how many more there are."""
        others = len(self.parts) - 1
        first = self.parts[0].name
        return f"{first}-and-{others}-more" if others else first

    def check(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Check every digest of every part and refuse one that is damaged.

        Parameters
        ----------
        advance : callable
            Told how many more rows are checked.

        Raises
        ------
        CacheCorruptError
            Naming the rows that are wrong in the first damaged part.
        """
        for part in self.parts:
            part.check(advance)

    def located(
        self, rows: Indices | slice
    ) -> Iterator[tuple[FeatureCache, Indices, Indices]]:
        """Return where rows lie, part by part.

        Parameters
        ----------
        rows : ndarray of int64, or slice
            Rows of the whole.

        Yields
        ------
        tuple of FeatureCache, ndarray, ndarray
            A part, positions among ``rows``, and the part's own row of each.
        """
        number, row = self._part[rows], self._row[rows]
        for part in np.unique(number).tolist():
            at = np.flatnonzero(number == part)
            yield self.parts[part], at, row[at]

    @property
    def source(self) -> PartedRows:
        """The features by row, read from the files."""
        return PartedRows([p.source for p in self.parts], self._part, self._row)

    def in_files(self, rows: Indices) -> Indices:
        """Return rows in the order in which files have them.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Rising.

        Returns
        -------
        ndarray of int64, shape (n,)
            The same ones, one file after the other.
        """
        return rows[np.lexsort((self._row[rows], self._part[rows]))]

    def take_views(self, rows: Indices, count: int) -> npt.NDArray[Any]:
        """Return the first views of some rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Rows of the whole, in any order.
        count : int
            v, how many views of each row.

        Returns
        -------
        ndarray, shape (n, v, D)
            A copy, in the stored dtype.
        """
        features = np.empty((len(rows), count, self.embed_dim), self.spec.dtype)
        for part, at, own in self.located(rows):
            features[at] = part.take_views(own, count)
        return features


def _count(wrong: npt.NDArray[np.bool_]) -> str:
    return f"{int(wrong.sum()):,}"


def _require_equal_specs(first: FeatureCache, other: FeatureCache) -> None:
    found = differences(other.spec.to_json(), first.spec.to_json())
    if found:
        fields = "; ".join(
            f"{name} is {there!r} in {shown(other.path)}, {here!r} in "
            f"{shown(first.path)}"
            for name, there, here in found
        )
        raise CacheMismatchError(
            f"the caches were made with different settings: {fields}"
        )


def _united_classes(
    parts: Sequence[FeatureCache],
) -> tuple[npt.NDArray[np.bytes_], Labels]:
    """Return the classes of all parts by name, and every row's label among them."""
    own = [part.columns["classes"].tolist() for part in parts]
    if all(classes == own[0] for classes in own):  # whose order may be by value
        return parts[0].columns["classes"], np.concatenate([p.labels for p in parts])
    names = sorted({name for classes in own for name in classes})
    number = {name: label for label, name in enumerate(names)}
    labels = [
        np.array([number[name] for name in classes], np.int32)[part.labels]
        for part, classes in zip(parts, own, strict=True)
    ]
    return np.array(names, "S"), np.concatenate(labels)
