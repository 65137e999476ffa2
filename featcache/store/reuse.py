"""Reuse: rows that earlier caches hold of the same images, found again safely.

A row is taken over only out of a block whose digest matches, for an image whose path,
size and time are unchanged, or whose bytes have the same sha256.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block
from featcache.core.manifest import TRAIN, Manifest
from featcache.core.status import Status
from featcache.core.viewed import adopt, view_counts
from featcache.store.reader import FeatureCache

# A file changed within the clock's tick in which it was first read keeps its time:
# such rows are read again. Two seconds is the coarsest file time in use (FAT).
RACY_NS = 2_000_000_000


class Reuse:
    """What is known already of a manifest's images.

    Parameters
    ----------
    manifest : Manifest
        The images of today.
    sources : sequence of FeatureCache
        Caches with the same fingerprint, the most trusted first.
    rehash : bool
        Trust no size and time; only digests of bytes.
    """

    def __init__(
        self, manifest: Manifest, sources: Sequence[FeatureCache], *, rehash: bool
    ) -> None:
        self._sources = sources
        self._sound: dict[tuple[int, int], bool] = {}
        self._lock = threading.Lock()
        self._digests = [_sorted_digests(s) for s in sources]
        n = len(manifest) if sources else 0  # 18 bytes for each
        self._source = np.full(n, -1, np.int16)
        self._row = np.zeros(n, np.int64)
        views = sources[0].spec.views if sources else 1
        self._counts = view_counts(manifest.splits[:n], views)
        if not rehash:
            for number, source in enumerate(sources):
                self._match(number, source, manifest)

    @property
    def empty(self) -> bool:
        """Whether no earlier cache is there to be searched."""
        return not self._sources

    def prefill(
        self,
        block: Block,
        features: npt.NDArray[Any],
        digests: npt.NDArray[np.uint8],
        status: npt.NDArray[np.uint8],
    ) -> None:
        """Fill the rows of a block whose files are unchanged.

        Parameters
        ----------
        block : Block
            Which rows of the manifest.
        features, digests, status : ndarray
            The block's rows; filled in place.
        """
        for at in np.flatnonzero(self._source[block.rows] >= 0).tolist():
            index = block.start + at
            number, row = int(self._source[index]), int(self._row[index])
            if self._is_sound(number, row):
                columns = self._sources[number].columns
                known, count = columns["features"][row], int(self._counts[index])
                if adopt(features[at], known, count):
                    digests[at] = columns["digests"][row]
                    status[at] = Status.OK

    def lookup(self, digest: bytes) -> npt.NDArray[Any] | None:
        """Return the features of an image by the digest of its bytes.

        Parameters
        ----------
        digest : bytes
            sha256, 32 bytes.

        Returns
        -------
        ndarray, shape (D,) or (V, D), or None
            As stored, with all views if one row has them; None where no source knows
            the image.
        """
        key = np.frombuffer(digest, "S32")
        for number, (keys, rows) in enumerate(self._digests):
            at = int(np.searchsorted(keys, key)[0])
            if at < len(keys) and keys[at] == key[0]:
                row = int(rows[at])
                if self._is_sound(number, row):
                    feature: npt.NDArray[Any] = self._sources[number].columns[
                        "features"
                    ][row]
                    return feature
        return None

    def _match(self, number: int, source: FeatureCache, manifest: Manifest) -> None:
        """Find rows of equal path, size and time."""
        order = np.argsort(source.paths)
        ordered = source.paths[order]
        at = np.searchsorted(ordered, manifest.paths)
        at[at == len(ordered)] = 0
        rows = order[at]
        began = int(source.header.provenance.get("began_ns", 0))
        same = (
            (ordered[at] == manifest.paths)
            & (source.columns["sizes"][rows] == manifest.sizes)
            & (source.columns["mtimes_ns"][rows] == manifest.mtimes_ns)
            & (manifest.mtimes_ns < began - RACY_NS)
            & (source.status[rows] == Status.OK)
            & (self._source < 0)
        )
        self._source[same] = number
        self._row[same] = rows[same]

    def _is_sound(self, number: int, row: int) -> bool:
        source = self._sources[number]
        size = source.header.block_rows
        index = row // size
        with self._lock:
            known = self._sound.get((number, index))
        if known is None:
            stop = min((index + 1) * size, len(source))
            known = source.sound(Block(index, index * size, stop))
            with self._lock:
                self._sound[number, index] = known
        return known


def _sorted_digests(
    source: FeatureCache,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the digests of usable rows in order, and their rows."""
    rows = np.flatnonzero(source.status == Status.OK)
    if source.spec.views > 1:  # of equal images, one that has all views is found
        rows = rows[np.argsort(source.splits[rows] != TRAIN, kind="stable")]
    # Fixed-width bytes compare without their trailing zeros; only equal bytes are
    # used, and two digests that differ in nothing but such zeros do not occur.
    keys = np.ascontiguousarray(source.columns["digests"][rows]).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    return keys[order], rows[order]
