"""A folder of caches that remember features of images by the sha256 of their bytes.

Every addition is a cache file of its own, there whole or not at all, under a name that
nobody else has: processes may read and add at once without waiting, and a kill costs
only what was being added.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import plan_blocks
from featcache.core.errors import CacheError, StorageError
from featcache.core.heads import Floats
from featcache.core.manifest import TRAIN, Manifest
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.store.files import storing
from featcache.store.opening import open_manifest
from featcache.store.reader import FeatureCache
from featcache.store.reuse import Reuse
from featcache.store.writer import CacheWriter, create, partial_path

OWN = "by-digest"
"""Sub-folder of the files that a memo writes; those beside it are only read."""

_CLASSES = ("images",)


class Memo:
    """What the caches of a folder know of images.

    Parameters
    ----------
    folder : Path
        Made when something is added. Caches that `extract` put there are read, too.
    spec : FeatureSpec
        Caches of other settings are passed over.

    Raises
    ------
    StorageError
        When the folder is a file.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        if folder.exists() and not folder.is_dir():
            raise StorageError(
                f"{shown(folder)} is a file; expected a folder for caches"
            )
        self._own, self._spec = folder / OWN, spec
        self._prefix = spec.fingerprint[:16]
        self._sources = [
            cache
            for path in (*sorted(folder.glob("*.h5")), *self.files())
            if (cache := _opened(path, spec)) is not None
        ]
        nothing = _manifest(folder, np.empty(0, "S64"))
        self._reuse = Reuse(nothing, self._sources, rehash=True)

    def files(self) -> list[Path]:
        """Return the files that memos of this spec have written.

        Returns
        -------
        list of Path
            In the order of their names.
        """
        return sorted(self._own.glob(f"{self._prefix}-*.h5"))

    def new_file(self) -> Path:
        """Return a name for a file of this spec.

        Returns
        -------
        Path
            That nobody else has.
        """
        return self._own / f"{self._prefix}-{uuid4().hex}.h5"

    def lookup(self, digest: bytes) -> Floats | None:
        """Return the feature of an image, where its block is undamaged.

        Parameters
        ----------
        digest : bytes
            sha256 of the image's bytes.

        Returns
        -------
        ndarray of float32, shape (D,), or None
            None for an image that is not known.
        """
        return self._reuse.lookup(digest)

    def add(
        self,
        features: Floats,
        digests: npt.NDArray[np.uint8],
        provenance: Mapping[str, Any],
    ) -> None:
        """Keep features; `lookup` finds them in the next memo.

        Parameters
        ----------
        features : ndarray of float32, shape (n, D)
            At least one.
        digests : ndarray of uint8, shape (n, 32)
            sha256 of the images' bytes.
        provenance : mapping
            JSON data.

        Raises
        ------
        StorageError
            When the disk is full or the folder cannot be written.
        """
        names = np.array([d.tobytes().hex().encode() for d in digests], "S64")
        names, first = np.unique(names, return_index=True)
        features, digests = features[first], digests[first]
        status = np.full(len(names), Status.OK, np.uint8)
        path = self.new_file()
        partial = partial_path(path)
        columns = _manifest(self._own, names).columns()
        with storing(path):
            try:
                create(partial, self._spec, columns, features.shape[1], provenance)
                with CacheWriter(partial) as writer:
                    rows = writer.header.block_rows
                    for block in plan_blocks(len(names), rows):
                        at = block.rows
                        writer.write(block, features[at], digests[at], status[at])
                    writer.finish(path)
            finally:
                partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files."""
        for cache in self._sources:
            cache.close()


def _opened(path: Path, spec: FeatureSpec) -> FeatureCache | None:
    """Open a cache of this spec; what is damaged or of another one is passed over."""
    try:
        cache = open_manifest(path)
    except (CacheError, StorageError):
        return None
    if cache.spec == spec:
        return cache
    cache.close()
    return None


def _manifest(folder: Path, names: npt.NDArray[np.bytes_]) -> Manifest:
    n = len(names)
    return Manifest(
        root=folder,
        classes=_CLASSES,
        paths=names,
        labels=np.zeros(n, np.int32),
        splits=np.full(n, TRAIN, np.uint8),
        sizes=np.zeros(n, np.int64),
        mtimes_ns=np.zeros(n, np.int64),
    )
