"""Tiles: the pictures of a cache's or a source's samples, as far as they are there."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy.typing as npt

from featcache.core.changes import rows_by_path
from featcache.core.errors import UnreachableError
from featcache.core.locations import Location
from featcache.core.manifest import Manifest
from featcache.core.progress import SILENT, Progress
from featcache.core.sources import Source
from featcache.core.specs import ViewSpec
from featcache.core.status import Status, UnusableImageError
from featcache.core.tiles import Tile
from featcache.stages.datasets import recorded_source
from featcache.store.table import FeatureTable
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.opening import source_is_there

GONE = "not there any more"
CHANGED = "changed since the cache was made"
NO_FOLDER = "the folder of the images is not here"
OUTSIDE = "its path leads out of the folder"

Find = Callable[[int], Location | None]


@dataclass(frozen=True, eq=False)
class TileSource:
    """Where the pictures of samples come from.

    Parameters
    ----------
    root : Path, optional
        The data folder; None where nobody knows it, or there is ``find``.
    view : ViewSpec
        What the network sees of an image.
    columns : mapping of str to ndarray
        ``paths`` (N,); of a cache also ``sizes``, ``digests`` and ``status``, which an
        image must have kept.
    find : callable, optional
        Returns where a row's image lies, or None where it is not there any more; below
        the root without it.
    """

    root: Path | None
    view: ViewSpec
    columns: Mapping[str, npt.NDArray[Any]]
    find: Find | None = None

    @classmethod
    def of_cache(
        cls, cache: FeatureTable, source: Source | None = None
    ) -> "TileSource":
        """Return the pictures of a cache's rows.

        Parameters
        ----------
        cache : FeatureTable
            One file, or several as one.
        source : Source, optional
            Where its images are now; what it was made of without it.

        Returns
        -------
        TileSource
            Whose tiles say so where an image is not the one that the cache knows.
        """
        source = source or cache_source(cache)
        names = ("paths", "sizes", "digests", "status")
        view, columns = cache.spec.view, {n: cache.columns[n] for n in names}
        if source is None or isinstance(source, Folder):  # paths say where files are
            return cls(None if source is None else source.root, view, columns)
        manifest = source.scan()
        rows = rows_by_path(manifest.columns(), {"paths": columns["paths"]})

        def find(row: int) -> Location | None:
            return manifest.file(int(rows[row])) if rows[row] >= 0 else None

        return cls(None, view, columns, find)

    @classmethod
    def of_manifest(cls, manifest: Manifest, view: ViewSpec) -> "TileSource":
        """Return the pictures of a source's samples.

        Parameters
        ----------
        manifest : Manifest
            As it was scanned.
        view : ViewSpec
            What the network sees of an image.

        Returns
        -------
        TileSource
            Of images as they are now.
        """
        return cls(None, view, {"paths": manifest.paths}, manifest.file)

    def tiles(self, rows: Iterable[int], longest: int | None = None) -> Iterator[Tile]:
        """Give the pictures of samples, some of them made ahead on threads.

        Parameters
        ----------
        rows : iterable of int
            Sample indices.
        longest : int, optional
            See `tile`.

        Yields
        ------
        Tile
            One for each, in order.
        """
        from featcache.vision.threads import Threads

        with Threads() as threads:
            made = threads.ordered(lambda row: self.tile(row, longest), rows)
            with closing(made):
                yield from made

    def tile(self, row: int, longest: int | None = None) -> Tile:
        """Return the picture of a sample.

        Parameters
        ----------
        row : int
            Its sample index.
        longest : int, optional
            Longer side of a picture of the whole image, pixels; without it the picture
            is what the network sees, (crop, crop).

        Returns
        -------
        Tile
            Without pixels where the image is not there any more, is another one than
            the cache knows, or cannot be used; the note says which.
        """
        status = Status(int(self.columns["status"][row])) if self._known else Status.OK
        if status != Status.OK:  # also what crashes the decoder
            return Tile(None, status.reason)
        if self.find is not None:
            location = self.find(row)
            note = GONE if location is None else ""
        else:
            note = self._objection(row)
            location = None if note else self._file(row)
        if location is None:
            return Tile(None, note)
        return file_tile(location, self.view, longest, self._digest(row))

    def _file(self, row: int) -> Path:
        assert self.root is not None
        return self.root / self._path(row)

    def _path(self, row: int) -> str:
        return os.fsdecode(bytes(self.columns["paths"][row]))

    def _objection(self, row: int) -> str:
        """Return what is wrong before the file is read."""
        if self.root is None or not self.root.is_dir():
            return NO_FOLDER
        path = PurePath(self._path(row))
        if path.is_absolute() or ".." in path.parts:  # the cache is a hostile one
            return OUTSIDE
        try:
            size = self._file(row).stat().st_size
        except OSError:
            return GONE
        return CHANGED if self._known and size != self.columns["sizes"][row] else ""

    @property
    def _known(self) -> bool:
        """Whether there is a cache that knows the images."""
        return "digests" in self.columns

    def _digest(self, row: int) -> bytes | None:
        return self.columns["digests"][row].tobytes() if self._known else None


def cache_source(cache: FeatureTable, progress: Progress = SILENT) -> Source | None:
    """Return what a cache was made of.

    Parameters
    ----------
    cache : FeatureTable
        One file, or several as one.
    progress : Progress
        Hears of shards that were cut off.

    Returns
    -------
    Source or None
        A folder that is not there where nothing is; None where nobody recorded it.
    """
    recorded = cache.provenance.get("data")
    if not isinstance(recorded, str):
        return None
    if source_is_there(recorded):
        return recorded_source(recorded, progress)
    return Folder(Path(recorded))


def file_tile(
    file: Location,
    view: ViewSpec,
    longest: int | None = None,
    digest: bytes | None = None,
) -> Tile:
    """Return the picture of an image file.

    Parameters
    ----------
    file : Path, Member or Cell
        The image.
    view : ViewSpec
        What the network sees of it.
    longest : int, optional
        See `TileSource.tile`.
    digest : bytes, optional
        sha256 that the file must have.

    Returns
    -------
    Tile
        Without pixels where there are none to show; the note says why.
    """
    from featcache.vision.decode import decode_view, read_file
    from featcache.vision.tiles import thumbnail

    if isinstance(file, Path) and not file.exists():
        return Tile(None, GONE)
    try:
        data = read_file(file)
        if digest is not None and hashlib.sha256(data).digest() != digest:
            return Tile(None, CHANGED)
        if longest is None:
            return Tile(decode_view(data, view))
        return Tile(thumbnail(data, view, longest))
    except (UnusableImageError, UnreachableError) as error:
        return Tile(None, str(error))
