"""Writing a cache: skeleton, rows block by block, journal, rename.

No order of writes, kill or torn page can turn into a wrong row: a block counts as
done only when its digest in the journal matches its bytes.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block
from featcache.core.digests import array_digest
from featcache.core.errors import CacheCorruptError, StorageError
from featcache.core.specs import FeatureSpec
from featcache.core.text import shown
from featcache.store.files import (
    allocate,
    replacing,
    storing,
    sweep,
    sync_folder,
    write_at,
)
from featcache.store.header import read_header
from featcache.store.layout import compose

_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def partial_path(path: Path) -> Path:
    """Return where a cache lies while it is not complete.

    Parameters
    ----------
    path : Path
        ``NAME.h5``.

    Returns
    -------
    Path
        ``NAME.h5.partial`` beside it.
    """
    return path.with_name(f"{path.name}.partial")


def old_path(path: Path) -> Path:
    """Return where an unfinished cache of an earlier state of the folder is kept.

    Parameters
    ----------
    path : Path
        ``NAME.h5``.

    Returns
    -------
    Path
        ``NAME.h5.partial.old``; a source of rows until the new one is complete.
    """
    return path.with_name(f"{path.name}.partial.old")


def create(
    path: Path,
    spec: FeatureSpec,
    manifest: Mapping[str, npt.NDArray[Any]],
    embed_dim: int,
    provenance: Mapping[str, Any],
) -> None:
    """Create a cache file without rows, with all of its space.

    The caller holds the cache's lock: what killed calls left of this file is removed.

    Parameters
    ----------
    path : Path
        The ``.partial`` file; replaced if it is there.
    spec : FeatureSpec
        Identity of the features.
    manifest : mapping of str to ndarray
        As `featcache.core.manifest.Manifest.columns` gives it.
    embed_dim : int
        D.
    provenance : mapping
        JSON data.

    Raises
    ------
    StorageError
        When the disk is too small or the folder cannot be written.
    """
    skeleton = compose(spec, manifest, embed_dim, provenance)
    with storing(path):
        sweep(path)  # each is as large as the whole cache
    with replacing(path) as temporary:
        fd = os.open(temporary, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            allocate(fd, skeleton.length, path)
            for offset, page in skeleton.pages.items():
                write_at(fd, page, offset)
            for name, values in manifest.items():
                data = np.ascontiguousarray(values).view(np.uint8).data
                write_at(fd, data, skeleton.columns[name].offset)
        finally:
            os.close(fd)
        read_header(temporary)


class CacheWriter:
    """Fills an incomplete cache file; blocks may come from several threads.

    Parameters
    ----------
    path : Path
        The ``.partial`` file, as `create` made it.

    Raises
    ------
    CacheError
        When it is damaged.
    StorageError
        When it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        with storing(path):
            self._fd = os.open(path, _FLAGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A failure here says nothing of the file: it is not complete in any case.
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        # Forgotten first: a close that fails has closed, and the number may be
        # another file's by the next try.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def write(
        self,
        block: Block,
        features: npt.NDArray[Any],
        digests: npt.NDArray[np.uint8],
        status: npt.NDArray[np.uint8],
    ) -> None:
        """Write one block's rows, then its line in the journal.

        Parameters
        ----------
        block : Block
            Which rows.
        features : ndarray, shape (b, D) or (b, V, D)
            In the cache's dtype.
        digests : ndarray of uint8, shape (b, 32)
            sha256 of each image file.
        status : ndarray of uint8, shape (b,)
            `featcache.core.status.Status`.

        Raises
        ------
        StorageError
            When the disk is full or fails.
        ValueError
            When the arrays are not the block's: they would overwrite others.
        """
        given = {"features": features, "digests": digests, "status": status}
        rows = {name: self._rows(name, block, v) for name, v in given.items()}
        with storing(self.path):
            for name, values in rows.items():
                offset = self.header.columns[name].row_offset(block.start)
                write_at(self._fd, values.view(np.uint8).data, offset)
            journal = self.header.columns["journal"].row_offset(block.index)
            write_at(self._fd, array_digest(*rows.values()), journal)

    def _rows(
        self, name: str, block: Block, values: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        column = self.header.columns[name]
        shape = (block.size, *column.shape[1:])
        if values.shape != shape or block.stop > self.header.rows:
            raise ValueError(
                f"{name} of block {block.index} are {values.shape}, expected {shape}"
            )
        return np.ascontiguousarray(values, column.dtype)

    def finish(self, target: Path) -> None:
        """Make the file durable and give it its final name.

        Parameters
        ----------
        target : Path
            ``NAME.h5``; a complete cache of that name is replaced at once.

        Raises
        ------
        CacheCorruptError
            When a block is still missing: a bug, kept from becoming a wrong cache.
        StorageError
            When the disk fails, or another host has put its own file in this place.
        """
        with storing(target):
            if not self._journal().any(axis=1).all():
                raise CacheCorruptError(f"{shown(self.path)} still lacks blocks")
            os.fsync(self._fd)
            self._require_own_name()
            self._close()  # Windows does not rename a file that is open
            # All rows are here and durable. After the rename, nobody would come back
            # to remove what a kill left.
            old_path(target).unlink(missing_ok=True)
            self.path.replace(target)
            sync_folder(target.parent)

    def _require_own_name(self) -> None:
        """Refuse to publish what another host put here, where locks do not reach."""
        if not os.path.samestat(os.fstat(self._fd), self.path.stat()):
            raise StorageError(
                f"{shown(self.path)} was replaced by another process while this one "
                "wrote it; let only one host at a time write a cache"
            )

    def _journal(self) -> npt.NDArray[np.uint8]:
        column = self.header.columns["journal"]
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(column.offset)
            lines = np.frombuffer(file.read(column.nbytes), np.uint8)
        return lines.reshape(column.shape)
