"""The map and the audit of a report: of the cache that the runs' images are in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.audits import AuditReport
from featcache.core.errors import CacheError, FeatcacheError
from featcache.core.pages import FINDINGS, AuditPart, MapPart
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.stages.auditing import audit
from featcache.stages.extraction import CACHE_FOLDER
from featcache.stages.report_pictures import Album, even_sample
from featcache.stages.scoring import Scored
from featcache.store.opening import open_cache, open_manifest
from featcache.store.table import FeatureTable

if TYPE_CHECKING:
    from featcache.train.projection import Method

POINTS = 3000
"""Most points of a map: above, neither eyes nor browsers gain anything."""

_NEIGHBOURS = 10  # images from which on neighbourhoods can be kept


def find_cache(
    named: Sequence[FeatureTable],
    scored: Sequence[Scored],
    folder: Path = CACHE_FOLDER,
) -> FeatureTable | None:
    """Return a cache that holds the images that were scored.

    Parameters
    ----------
    named : sequence of FeatureTable
        What the user named, or what the runs were measured on.
    scored : sequence of Scored
        For their images.
    folder : Path
        Where a cache is looked for if none of those has them.

    Returns
    -------
    FeatureTable or None
        The first, else the newest, that has more than half of the first run's images.
    """
    for cache in named:
        if _has(cache, scored[0]):
            return cache
    files = sorted(folder.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(files):
        try:
            with open_manifest(path) as cache:
                fits = _has(cache, scored[0]) and _made_of(cache, scored[0].address)
        except CacheError:
            continue  # nobody asked for this file
        if fits:
            return open_cache(path)
    return None


def _made_of(cache: FeatureTable, address: str | None) -> bool:
    """Tell whether a cache that nobody named is of a source: names may be alike."""
    recorded = cache.provenance.get("data")
    if address is None or not isinstance(recorded, str):
        return False
    return recorded == address or Path(recorded).resolve() == Path(address).resolve()


def _has(cache: FeatureTable, scored: Scored) -> bool:
    found = np.isin(scored.paths, cache.paths).mean()
    return cache.map_shape is None and bool(found > 0.5)


def audit_part(
    cache: FeatureTable, album: Album, progress: Progress
) -> AuditPart | str:
    """Audit a cache, and put the first findings of each kind into an album.

    Parameters
    ----------
    cache : FeatureTable
        To be audited.
    album : Album
        Of the page.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    AuditPart or str
        Why there is none.
    """
    try:
        report = audit(cache, progress=progress)
    except FeatcacheError as error:
        return f"{error}."
    rows = _rows(cache, _paths(report))
    return AuditPart(
        report, {path: _add(album, cache, row) for path, row in rows.items()}
    )


def map_part(cache: FeatureTable, album: Album, progress: Progress) -> MapPart:
    """Return the map of a cache: what the album has of it first, then a sample.

    Parameters
    ----------
    cache : FeatureTable
        Whose features.
    album : Album
        Of the page; gets the images of the points.
    progress : Progress
        Hears that it is being made.

    Returns
    -------
    MapPart
        Of at most `POINTS` images.

    Raises
    ------
    CacheMismatchError
        When the cache has no features but maps.
    """
    from featcache.train.projection import project

    usable = cache.features().sample_index
    first = np.isin(cache.paths[usable], np.array(album.paths, "S"))
    known = usable[first][: POINTS // 2]
    others = usable[~first]
    sample = even_sample(cache.labels[others], POINTS - len(known))
    rows = np.r_[known, others[sample]]
    method: Method = "tsne" if len(rows) >= _NEIGHBOURS else "pca"
    progress.detail(f"a map of {len(rows):,} images by {method}")
    points = project(cache.take(rows), method)
    # In this order, so that the pictures there is room for are of all classes, and
    # no class of points hides another.
    numbers = tuple(_add(album, cache, row) for row in rows.tolist())
    source = f"{shown(cache.path)} (features of {cache.spec.backbone})"
    return MapPart(points, numbers, len(usable), method, source)


def _add(album: Album, cache: FeatureTable, row: int) -> int:
    name = cache.classes[int(cache.labels[row])]
    return album.add(bytes(cache.paths[row]), name, int(cache.splits[row]))


def _paths(report: AuditReport) -> list[str]:
    """Return the paths of the findings that are shown, and what they are copies of."""
    shown_ones = [f for kind in report.counts for f in report.of(kind)[:FINDINGS]]
    both = [path for f in shown_ones for path in (f.path, f.other) if path]
    return list(dict.fromkeys(both))


def _rows(cache: FeatureTable, printed: Sequence[str]) -> dict[str, int]:
    """Return the rows of images by their printed paths."""
    raw = np.array([path.encode() for path in printed], "S")
    _, rows, at = np.intersect1d(cache.paths, raw, return_indices=True)
    found = {printed[i]: int(row) for row, i in zip(rows, at, strict=True)}
    if len(found) < len(printed):  # a name of which something could not be printed
        every = {shown(path): row for row, path in enumerate(cache.paths)}
        found |= {path: every[path] for path in printed if path not in found}
    return found
