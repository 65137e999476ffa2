"""Reading a cache: memory-mapped columns, features by split, digests checked."""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block, plan_blocks
from featcache.core.digests import array_digest
from featcache.core.errors import (
    BadImage,
    CacheCorruptError,
    CacheMismatchError,
    DamagedRowsError,
    StorageError,
)
from featcache.core.manifest import SPLITS
from featcache.core.reports import ExtractReport
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import listed, plural, shown
from featcache.store.checking import unsound
from featcache.store.header import Header, header_of, open_file
from featcache.store.layout import manifest_digest
from featcache.store.rows import FileRows
from featcache.store.table import FeatureTable
from featcache.store.told import ClosedColumns, closed

CHECKED_ON_OPEN = 256 << 20  # bytes; larger caches are checked by verify alone

NAMED = 20  # rows in the text of an error; all of them are in its ``rows``

_BLOCK_COLUMNS = ("features", "digests", "status")


class FeatureCache(FeatureTable):
    """A complete cache file, mapped read-only.

    Rows are read at memory speed and any number of processes may read at once. A
    reader goes on with the file that it opened even when that is replaced.

    Parameters
    ----------
    path : Path
        The ``.h5`` file.

    Raises
    ------
    CacheNotFoundError
        When there is no such file.
    CacheCorruptError
        When it is no cache of ours, or its header is damaged.
    CacheMismatchError
        When a newer featcache wrote it.
    StorageError
        When it cannot be read.

    Examples
    --------
    >>> cache = featcache.open_cache("cache/ants.h5")  # doctest: +SKIP
    >>> train = cache.features("train")  # doctest: +SKIP
    >>> train.X.shape, train.y.shape  # doctest: +SKIP
    ((244, 512), (244,))
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.report: ExtractReport | None = None
        """What `extract` did, where it made this object."""
        with open_file(self.path) as file:
            self.header: Header = header_of(file, self.path)
            self._map = _mapped(file, self.header)
            # Unlike np.ndarray(buffer=...), this keeps the map open while it is used.
            data = np.frombuffer(self._map, np.uint8)
            self.columns: Mapping[str, npt.NDArray[Any]] = {
                name: data[c.offset : c.offset + c.nbytes]
                .view(c.dtype)
                .reshape(c.shape)
                for name, c in self.header.columns.items()
            }
            offset = self.header.columns["features"].offset
            self._source = FileRows(
                self.path, file.fileno(), offset, self.columns["features"]
            )

    def close(self) -> None:
        """Let go of the file; arrays handed out before stay readable."""
        self.columns = ClosedColumns(self.path)
        self.__dict__.pop("_source", None)  # whoever was given it keeps it
        # While somebody still holds an array, the map goes with the last one.
        with suppress(BufferError):
            self._map.close()

    def __len__(self) -> int:
        return self.header.rows

    def __reduce__(self) -> tuple[Any, ...]:
        # What another process gets is where the file lies, and it maps that itself.
        path = os.path.abspath(self.path)  # noqa: PTH100 - bytes stay
        return _reopened, (path, self.fingerprint, self.header.manifest_sha256)

    @property
    def spec(self) -> FeatureSpec:
        """What made the features: the identity of the cache."""
        return self.header.spec

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions, host, times: recorded, not identity."""
        return self.header.provenance

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.header.embed_dim

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names in label order."""
        return tuple(os.fsdecode(name) for name in self.columns["classes"].tolist())

    @property
    def source(self) -> FileRows:
        """The features by row, mapped or read."""
        if not self.columns:
            raise closed(self.path)
        return self._source

    def take_views(self, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
        """Return the first views of some rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers, in any order.
        count : int
            v, how many views of each row.

        Returns
        -------
        ndarray, shape (n, v, D)
            In the stored dtype; a view of the file where the rows lie together and
            rise, else a copy.
        """
        as_many = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        together = as_many and bool((np.diff(rows) == 1).all())
        key: Any = slice(rows[0], rows[-1] + 1) if together else rows
        features = self.columns["features"]
        several = features.ndim == 3
        found: npt.NDArray[Any] = (
            features[key, :count] if several else features[key][:, None]
        )
        return found

    def blocks(self) -> Iterator[Block]:
        """Return the blocks of the file.

        Returns
        -------
        iterator of Block
            In order.
        """
        return plan_blocks(len(self), self.header.block_rows)

    def sound(self, block: Block) -> bool:
        """Tell whether a block's bytes match their digest in the journal.

        Parameters
        ----------
        block : Block
            One of `blocks`.

        Returns
        -------
        bool
            False for a block that was never finished, too.
        """
        digest = array_digest(*(self.columns[c][block.rows] for c in _BLOCK_COLUMNS))
        return bool(digest == self.columns["journal"][block.index].tobytes())

    def manifest_sound(self) -> bool:
        """Tell whether paths, labels, splits and classes match their digest.

        Returns
        -------
        bool
            True when every byte of them is as written.
        """
        return manifest_digest(self.manifest_columns()) == self.header.manifest_sha256

    def check_manifest(self) -> None:
        """Refuse a cache whose paths, labels, splits or classes are damaged.

        Raises
        ------
        CacheCorruptError
            When they do not match their digest: nothing can tell what they were.
        """
        if not self.manifest_sound():
            raise CacheCorruptError(
                f"{shown(self.path)} is damaged: its paths or labels do not match "
                "their digest; delete it and run 'featcache extract' again"
            )

    def check_values(self) -> None:
        """Refuse labels, splits and states that cannot be.

        Raises
        ------
        CacheCorruptError
            When one is out of bounds, or a row was never computed.
        """
        tops = {
            "labels": len(self.columns["classes"]) - 1,
            "splits": len(SPLITS) - 1,
            "status": max(Status),
        }
        for name, top in tops.items():
            low, high = int(self.columns[name].min()), int(self.columns[name].max())
            if low < 0 or high > top:
                raise CacheCorruptError(
                    f"{shown(self.path)} is damaged: its {name} go from {low} to "
                    f"{high}, not from 0 to {top}; delete it and run "
                    "'featcache extract' again"
                )
        pending = int((self.status == Status.PENDING).sum())
        if pending:
            raise CacheCorruptError(
                f"{shown(self.path)} is damaged or was never finished: "
                f"{plural(pending, 'row')} not computed; delete it and run "
                "'featcache extract' again"
            )

    def check(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Check every digest and refuse a cache that is damaged.

        Parameters
        ----------
        advance : callable
            Told how many more rows are checked.

        Raises
        ------
        CacheCorruptError
            When the paths and labels are damaged, or values cannot be.
        DamagedRowsError
            Naming every row of the blocks that do not match their digests.
        """
        self.check_manifest()
        bad = self.unsound(advance)
        if not bad or self._never_written(bad):
            self.check_values()
        if bad:
            raise _damaged(self, bad)

    def _never_written(self, bad: list[Block]) -> bool:
        journal = self.columns["journal"]
        return any(not journal[block.index].any() for block in bad)

    def unsound(self, advance: Callable[[int], None] = lambda _: None) -> list[Block]:
        """Return the blocks that do not match their digests.

        Parameters
        ----------
        advance : callable
            Told how many more rows are checked.

        Returns
        -------
        list of Block
            In order; all blocks are looked at, on one thread per core.
        """
        return unsound(self.blocks(), self.sound, advance)


def _damaged(cache: FeatureCache, bad: list[Block]) -> DamagedRowsError:
    rows = [
        BadImage(
            shown(cache.paths[row]),
            f"row {row}: its block {block.index} does not match its digest",
        )
        for block in bad
        for row in range(block.start, block.stop)
    ]
    return DamagedRowsError(
        f"{shown(cache.path)} is damaged: {plural(len(bad), 'block')} of rows do not "
        f"match their digests, the first at row {bad[0].start} "
        f"({listed((row.path for row in rows), NAMED)}); run 'featcache verify "
        "--repair' with the images at hand, or delete it and run 'featcache extract' "
        "again",
        rows,
    )


def _mapped(file: BinaryIO, header: Header) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), header.length, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: cut off a moment ago
        raise StorageError(f"cannot map {shown(header.path)}: {error}") from error


def _reopened(path: str, fingerprint: str, manifest_sha256: str) -> FeatureCache:
    cache = FeatureCache(Path(path))
    found = cache.fingerprint, cache.header.manifest_sha256
    if found == (fingerprint, manifest_sha256):
        return cache
    cache.close()
    raise CacheMismatchError(
        f"{shown(path)} was replaced by another cache meanwhile; open it again"
    )


def open_cache(path: str | os.PathLike[str]) -> FeatureCache:
    """Open a complete cache.

    Every digest is checked while the file is at most 256 MiB; above that the header
    and the values only, and ``featcache verify`` checks the rest.

    Parameters
    ----------
    path : str or path
        The ``.h5`` file.

    Returns
    -------
    FeatureCache
        Mapped read-only.

    Raises
    ------
    CacheNotFoundError
        When there is no such file.
    CacheCorruptError
        When it is no cache of ours, or is damaged.
    CacheMismatchError
        When a newer featcache wrote it.
    StorageError
        When it cannot be read.
    """
    cache = FeatureCache(Path(path))
    if cache.header.length <= CHECKED_ON_OPEN:
        cache.check()
    else:
        cache.check_values()
    return cache
