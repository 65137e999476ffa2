"""Models and data: which is which, and what each model is measured on."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.core.addresses import is_url
from featcache.core.errors import (
    CacheError,
    CacheMismatchError,
    DataError,
    ModelError,
)
from featcache.core.progress import Progress
from featcache.core.shards import set_pattern
from featcache.core.text import listed, shown
from featcache.stages.datasets import KNOWN
from featcache.stages.extraction import CACHE_FOLDER
from featcache.stages.runs import MODEL_FILE
from featcache.stages.scoring import (
    Place,
    Scored,
    is_cache,
    mismatches,
    score_cache,
    score_folder,
)
from featcache.store.artifacts import Model
from featcache.store.opening import is_pattern, open_cache, open_manifest
from featcache.store.table import FeatureTable
from featcache.vision.sources.opening import source_is_there

Source = Place | FeatureTable


@dataclass(frozen=True, eq=False)
class Named:
    """A model, and what messages call it."""

    model: Model
    name: str
    file: Path | None = None  # None for one that was opened before

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its run was asked for, as far as the file says."""
        found = self.model.report.get("settings")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, eq=False)
class Sources:
    """What the user named: caches, opened, and folders."""

    caches: tuple[FeatureTable, ...]
    folders: tuple[Place, ...]


def tell_apart(
    given: Iterable[Source | Model],
) -> tuple[list[Place | Model], list[Source]]:
    """Tell models from data.

    Parameters
    ----------
    given : iterable of str, path, Model or FeatureCache
        In any order.

    Returns
    -------
    list of models, list of data
        A ``.safetensors`` file is a model, and so is a folder that holds one as a run
        does; the rest are caches, patterns of caches, folders and known data sets.

    Raises
    ------
    DataError
        When something is not there.
    """
    models: list[Place | Model] = []
    data: list[Source] = []
    for thing in given:
        if isinstance(thing, Model):
            models.append(thing)
        elif isinstance(thing, FeatureTable):
            data.append(thing)
        elif (
            Path(thing).suffix == ".safetensors" or (Path(thing) / MODEL_FILE).exists()
        ):
            models.append(thing)
        else:
            _require_there(thing)
            data.append(thing)
    return models, data


def _require_there(place: Place) -> None:
    if not (str(place) in KNOWN or is_pattern(place) or source_is_there(str(place))):
        raise DataError(
            f"there is no {shown(place)}: expected the folder of a run, a model, a "
            f"cache, a folder of images, or a known data set ({', '.join(KNOWN)})"
        )


def find_sources(
    data: Sequence[Source],
    models: Sequence[Named],
    progress: Progress,
    folder: Path = CACHE_FOLDER,
) -> Sources:
    """Open what the user named; without anything what fits the models.

    Parameters
    ----------
    data : sequence of str, path or FeatureTable
        Caches, patterns of caches, folders, known data sets.
    models : sequence of Named
        What the caches are for.
    progress : Progress
        Hears of a folder that nobody named.
    folder : Path
        Where caches are looked for, if none is named.

    Returns
    -------
    Sources
        In the order they were named. Otherwise the caches that heads were fitted on,
        where these are gone the newest that fit, and for models that have none the
        folder that a run was trained on.

    Raises
    ------
    CacheError
        When a cache that was named is missing or damaged.
    DataError
        When the runs name several folders, or one that is not there.
    """
    if not data:
        caches = tuple(_newest(folder, models))
        if all(_fits_one(m.model, caches) for m in models):
            return Sources(caches, ())
        return Sources(caches, _trained_on(models, progress))
    tables = [s for s in data if isinstance(s, FeatureTable)]
    places = [s for s in data if not isinstance(s, FeatureTable)]
    tables += [open_cache(place) for place in places if is_cache(place)]
    return Sources(tuple(tables), tuple(p for p in places if not is_cache(p)))


def _fits_one(model: Model, caches: Iterable[FeatureTable]) -> bool:
    return not model.fine_tuned and any(not misfit(model, cache) for cache in caches)


def _trained_on(models: Sequence[Named], progress: Progress) -> tuple[Place, ...]:
    """Return the one source that the runs' settings name; nothing if none does."""
    found: dict[Place, tuple[Named, Place]] = {}
    for named in models:
        if isinstance(data := named.settings.get("data"), str):
            place: Place = data if is_url(data) else Path(data)
            same = place.resolve() if isinstance(place, Path) else place
            found.setdefault(same, (named, place))
    if len(found) > 1:
        first, second = (f"{m.name} on {shown(f)}" for m, f in list(found.values())[:2])
        raise DataError(
            f"the runs were trained on different folders: {first}, {second}; name the "
            "folder on whose images they are to be compared"
        )
    for named, data in found.values():
        if not source_is_there(os.fspath(data)):
            raise DataError(
                f"{named.name} was trained on {shown(data)}, and there is no such "
                "folder (any more, or from here); name the folder of images"
            )
        progress.say(f"on the images of {shown(data)}, as {named.name} was trained on")
    return tuple(data for _, data in found.values())


def _newest(folder: Path, models: Sequence[Named]) -> Iterator[FeatureTable]:
    """Yield a cache that fits, for each model that has one: its own, or the newest."""
    files = sorted(folder.glob("*.h5"), key=lambda p: -p.stat().st_mtime_ns)
    own = (named.settings.get("cache") for named in models)
    fitted_on = [Path(c) for c in own if isinstance(c, str) and Path(c).is_file()]
    left = [named.model for named in models if not named.model.fine_tuned]
    for path in dict.fromkeys([*fitted_on, *files]):
        if not left:
            return
        try:
            with open_manifest(path) as cache:
                fitting = [m for m in left if not misfit(m, cache)]
        except CacheError:
            continue  # nobody asked for this file
        if fitting:
            left = [m for m in left if m not in fitting]
            yield open_cache(set_pattern(path) or path)


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
        That it holds maps, the first field that differs, or classes that the model
        does not know; empty where the cache fits.
    """
    if cache.map_shape is not None:
        return f"{shown(cache.path)} holds maps of {cache.spec.layer}, no features"
    for field, there, needed in mismatches(model, cache):
        return f"{field} is {there!r} in {shown(cache.path)}, {needed!r} in the model"
    unknown = [shown(name) for name in cache.classes if name not in model.classes]
    if unknown:
        return f"{shown(cache.path)} has classes of another task: {listed(unknown, 3)}"
    return ""
