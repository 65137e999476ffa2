"""`status`: what became of a folder since its cache was made."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.changes import (
    Digests,
    Rows,
    among,
    compare,
    rows_by_path,
    trusted,
)
from featcache.core.errors import CacheError, DataError, SpecError
from featcache.core.locations import Location
from featcache.core.machine import cores
from featcache.core.manifest import TRAIN, Manifest
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.shards import ShardRecord
from featcache.core.sources import Source
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.stages.datasets import data_source, recorded_source
from featcache.stages.newest import newest_file
from featcache.stages.plans import image_digest
from featcache.store.opening import is_pattern
from featcache.store.reader import FeatureCache, open_cache
from featcache.store.reuse import RACY_NS
from featcache.store.writer import old_path, partial_path
from featcache.vision.sources.opening import source_is_there


@dataclass(frozen=True, kw_only=True)
class StatusReport(Report):
    """A folder compared with a cache; each image of either is told once."""

    cache: Path
    data: str
    added: tuple[str, ...]
    changed: tuple[str, ...]  # other content under the same path
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # old path, new path; equal content
    relabelled: tuple[str, ...]  # same path and content, another class or split
    unchanged: int
    to_compute: int  # images that extract would send through the backbone


def status(
    cache: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = SILENT,
) -> StatusReport:
    """Compare a cache with a folder as it is now; both stay as they are.

    One of several parts is compared with the images that are its own.

    Path, size and time are trusted as `extract` trusts them; every other image is
    read, and its sha256 decides.

    Parameters
    ----------
    cache : str or path, optional
        The newest file in ``cache/`` without it.
    data : str or path, optional
        A folder or known data set; the one that the cache was made of without it.
    progress : Progress
        Hears how many images are read.

    Returns
    -------
    StatusReport
        What was added, changed, removed, renamed or relabelled.

    Raises
    ------
    CacheError
        When the cache is missing or damaged.
    DataError
        When the folder is missing, or none with images of classes.
    SpecError
        When several files are named by a pattern.
    """
    path = newest_file(maps=True) if cache is None else Path(cache)
    if is_pattern(path):
        raise SpecError(
            f"{shown(path)} is several files; status compares one with its images: "
            "name one of them"
        )
    with open_cache(path) as opened:
        if data is None:
            source = _recorded(opened, progress)
        else:
            source = data_source(data, progress=progress, use_cut=True)
        return _compared(opened, source, progress)


def _recorded(cache: FeatureCache, progress: Progress) -> Source:
    recorded = cache.header.provenance.get("data")
    if isinstance(recorded, str) and source_is_there(recorded):
        return recorded_source(recorded, progress)
    file = shown(cache.path)
    where = f": there is no {shown(recorded)}" if isinstance(recorded, str) else ""
    raise DataError(
        f"the folder that {file} was made of is not known here{where}; name the "
        f"folder: featcache status {file} DATA"
    )


def _compared(cache: FeatureCache, source: Source, progress: Progress) -> StatusReport:
    manifest, record = source.scan(), ShardRecord.read(cache.provenance)
    if record is not None:
        manifest = record.shard.take(manifest)
    old, new = cache.columns, manifest.columns()
    rows = rows_by_path(old, new)
    digests = _digests(cache, manifest, rows, progress)
    changes = compare(old, new, rows, digests)
    renamed = zip(
        _shown(cache.paths, changes.renamed[:, 0]),
        _shown(manifest.paths, changes.renamed[:, 1]),
        strict=True,
    )
    return StatusReport(
        cache=cache.path,
        data=shown(source.address),
        added=_shown(manifest.paths, changes.added),
        changed=_shown(manifest.paths, changes.changed),
        removed=_shown(cache.paths, changes.removed),
        renamed=tuple(renamed),
        relabelled=_shown(manifest.paths, changes.relabelled),
        unchanged=changes.unchanged,
        to_compute=changes.fresh(digests, _known(cache))
        + _lacking_views(cache, manifest, digests),
    )


def _shown(paths: npt.NDArray[np.bytes_], rows: Rows) -> tuple[str, ...]:
    return tuple(map(shown, paths[rows].tolist()))


def _digests(
    cache: FeatureCache, manifest: Manifest, rows: Rows, progress: Progress
) -> Digests:
    """Return every image's digest; only files that may have changed are read."""
    began = int(cache.header.provenance.get("began_ns", 0))
    same = trusted(cache.columns, manifest.columns(), rows, began - RACY_NS)
    digests = np.zeros((len(manifest), 32), np.uint8)
    digests[same] = cache.columns["digests"][rows[same]]
    doubtful = np.flatnonzero(~same).tolist()
    if not doubtful:
        return digests
    progress.begin("read", len(doubtful), unit="image")
    try:
        with ThreadPoolExecutor(cores()) as pool:
            files: Iterable[Location] = map(manifest.file, doubtful)
            for row, digest in zip(
                doubtful, pool.map(image_digest, files), strict=True
            ):
                digests[row] = np.frombuffer(digest, np.uint8)
                progress.advance(1)
    finally:
        progress.end()
    return digests


def _lacking_views(cache: FeatureCache, manifest: Manifest, digests: Digests) -> int:
    """Count the training images that are known, but not with all views."""
    if cache.spec.views == 1:
        return 0
    asked = digests[manifest.splits == TRAIN]
    asked = asked[asked.any(axis=1)]
    whole = cache.columns["digests"][cache.splits == TRAIN]
    return int((among(asked, _known(cache)) & ~among(asked, whole)).sum())


def _known(cache: FeatureCache) -> Digests:
    """Return the digests of all that `extract` would find again."""
    known = [cache.columns["digests"]]
    for path in (partial_path(cache.path), old_path(cache.path)):
        with suppress(CacheError), FeatureCache(path) as begun:
            if begun.spec == cache.spec and begun.manifest_sound():
                known += _finished(begun)
    return np.concatenate(known)


def _finished(begun: FeatureCache) -> list[Digests]:
    """Return copies of the digests in an unfinished cache's finished blocks."""
    return [
        begun.columns["digests"][block.rows][begun.status[block.rows] == Status.OK]
        for block in begun.blocks()
        if begun.sound(block)
    ]
