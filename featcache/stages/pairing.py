"""Two models on the same images: which data each takes, and which images they share."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.errors import (
    CacheError,
    CacheMismatchError,
    DataError,
    ModelError,
)
from featcache.core.progress import Progress
from featcache.core.text import listed, plural, shown
from featcache.stages.extraction import CACHE_FOLDER
from featcache.stages.scoring import (
    Place,
    Scored,
    is_cache,
    mismatches,
    score_cache,
    score_folder,
)
from featcache.store.artifacts import Model
from featcache.store.opening import open_cache, open_manifest
from featcache.store.table import FeatureTable

Source = Place | FeatureTable
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Named:
    """A model, and what messages call it."""

    model: Model
    name: str


@dataclass(frozen=True, eq=False)
class Sources:
    """What the user named: caches, opened, and folders."""

    caches: tuple[FeatureTable, ...]
    folders: tuple[Place, ...]


def find_sources(
    data: Source | Iterable[Source],
    models: Sequence[Named],
    folder: Path = CACHE_FOLDER,
) -> Sources:
    """Open what the user named; without anything the newest caches that fit.

    Parameters
    ----------
    data : str, path, FeatureTable, or several of them
        Caches, patterns of caches, folders, known data sets.
    models : sequence of Named
        What the caches are for.
    folder : Path
        Where caches are looked for, if none is named.

    Returns
    -------
    Sources
        In the order they were named.

    Raises
    ------
    CacheError
        When a cache that was named is missing or damaged.
    """
    if isinstance(data, str | os.PathLike | FeatureTable):
        data = [data]
    named = list(data)
    if not named:
        return Sources(tuple(_newest(folder, models)), ())
    tables = [s for s in named if isinstance(s, FeatureTable)]
    places = [s for s in named if not isinstance(s, FeatureTable)]
    tables += [open_cache(place) for place in places if is_cache(place)]
    return Sources(tuple(tables), tuple(p for p in places if not is_cache(p)))


def _newest(folder: Path, models: Sequence[Named]) -> Iterator[FeatureTable]:
    """Yield the newest cache of a folder that fits, for each model that has one."""
    files = sorted(folder.glob("*.h5"), key=lambda p: p.stat().st_mtime_ns)
    left = [named.model for named in models if not named.model.fine_tuned]
    for path in reversed(files):
        if not left:
            return
        try:
            with open_manifest(path) as cache:
                fitting = [m for m in left if not misfit(m, cache)]
        except CacheError:
            continue  # nobody asked for this file
        if fitting:
            left = [m for m in left if m not in fitting]
            yield open_cache(path)


def score(
    named: Named, sources: Sources, split: str, *, device: str, progress: Progress
) -> Scored:
    """Score the first cache that a model's backbone made, else the first folder.

    Parameters
    ----------
    named : Named
        The model.
    sources : Sources
        See `find_sources`.
    split : {"train", "val", "test"}
        Which part.
    device : str
        Where the network runs, if there is a folder to run it on.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    Scored
        One row for every usable image.

    Raises
    ------
    CacheMismatchError
        When no cache fits and no folder was named.
    ModelError
        When a fine-tuned model has no folder.
    """
    model = named.model
    if not model.fine_tuned:
        for cache in sources.caches:
            if not misfit(model, cache):
                return score_cache(model, cache, split)
    if sources.folders:
        place = sources.folders[0]
        return score_folder(
            model, place, split, weights=None, device=device, progress=progress
        )
    raise _unfit(named, sources)


def _unfit(named: Named, sources: Sources) -> CacheMismatchError | ModelError:
    if named.model.fine_tuned:
        return ModelError(
            f"{named.name} carries a fine-tuned backbone, which no cache belongs to; "
            "name the image folder as well"
        )
    if not sources.caches:
        return CacheMismatchError(
            f"no cache in {CACHE_FOLDER}{os.sep} belongs to {named.name}; name its "
            "cache, or the image folder"
        )
    reasons = "; ".join(misfit(named.model, cache) for cache in sources.caches)
    return CacheMismatchError(
        f"no cache belongs to {named.name}: {reasons}. Name its cache as well, or the "
        "image folder"
    )


def misfit(model: Model, cache: FeatureTable) -> str:
    """Say why a cache is none for a model.

    Parameters
    ----------
    model : Model
        Without a backbone of its own.
    cache : FeatureTable
        One file, or several as one.

    Returns
    -------
    str
        The first field that differs, or classes that the model does not know; empty
        where the cache fits.
    """
    for field, there, needed in mismatches(model, cache):
        return f"{field} is {there!r} in {shown(cache.path)}, {needed!r} in the model"
    unknown = [shown(name) for name in cache.classes if name not in model.classes]
    if unknown:
        return f"{shown(cache.path)} has classes of another task: {listed(unknown, 3)}"
    return ""


def pair(
    models: tuple[Named, Named], scored: tuple[Scored, Scored]
) -> tuple[tuple[Scored, Scored], int]:
    """Return the images that both models were given, in one order.

    Parameters
    ----------
    models : tuple of Named
        For their classes.
    scored : tuple of Scored
        What each says.

    Returns
    -------
    tuple of Scored, int
        Rows of equal paths, and how many rows have none.

    Raises
    ------
    DataError
        When no path is in both.
    CacheMismatchError
        When a path has another class or another image in the other data.
    """
    a, b = scored
    _, rows_a, rows_b = np.intersect1d(a.paths, b.paths, return_indices=True)
    if not len(rows_a):
        raise DataError(
            f"{a.source} and {b.source} have no image in common, so the models cannot "
            "be compared; paths are compared relative to the data folder"
        )
    paired = _taken(a, rows_a), _taken(b, rows_b)
    _require_same_images(models, paired)
    return paired, len(a.y) + len(b.y) - 2 * len(rows_a)


def _taken(scored: Scored, rows: Rows) -> Scored:
    digests = None if scored.digests is None else scored.digests[rows]
    return replace(
        scored,
        scores=scored.scores[rows],
        y=scored.y[rows],
        paths=scored.paths[rows],
        digests=digests,
    )


def _require_same_images(
    models: tuple[Named, Named], scored: tuple[Scored, Scored]
) -> None:
    a, b = scored
    class_a, class_b = (
        np.array(m.model.classes)[s.y] for m, s in zip(models, scored, strict=True)
    )
    differ = {"class": class_a != class_b}
    if a.digests is not None and b.digests is not None:
        differ["image"] = (a.digests != b.digests).any(axis=1)
    for what, wrong in differ.items():
        if wrong.any():
            path = shown(a.paths[int(wrong.argmax())])
            count = plural(int(wrong.sum()), "image")
            raise CacheMismatchError(
                f"{path} has another {what} in {b.source} than in {a.source} ({count} "
                "in all); bring both up to date with 'featcache extract'"
            )
