"""What an extraction has to tell of the cache that it made."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.clock import Clock
from featcache.core.duplicates import find_duplicates
from featcache.core.errors import BadImage
from featcache.core.progress import Progress
from featcache.core.reports import ExtractReport
from featcache.core.shards import Shard
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import plural, shown, size, times
from featcache.core.timing import Timing
from featcache.store.table import FeatureTable

if TYPE_CHECKING:
    from featcache.stages.tasks import Engine


def outcome(
    cache: FeatureTable,
    *,
    timing: Timing,
    pieces: Mapping[str, str],
    duplicates: int,
    seconds: float,
    shard: Shard | None = None,
) -> ExtractReport:
    """Return the report of an extraction.

    Parameters
    ----------
    cache : FeatureTable
        Complete.
    timing : Timing
        Of the images that went through the backbone.
    pieces : mapping of str to str
        Which implementations were in use; nothing if nothing was computed.
    duplicates : int
        See `tell_duplicates`.
    seconds : float
        Of everything.
    shard : Shard, optional
        Which part of the data this is; all of it without it.

    Returns
    -------
    ExtractReport
        Rows that were neither computed nor skipped were reused.
    """
    images, skipped, computed = len(cache), cache.skipped, timing.images
    return ExtractReport(
        cache=cache.path,
        shard=None if shard is None else str(shard),
        images=images,
        computed=computed,
        reused=images - computed - skipped,
        skipped=skipped,
        duplicates=duplicates,
        embed_dim=cache.embed_dim,
        map_shape=cache.spec.map_shape,
        views=cache.spec.views if cache.spec.views > 1 else None,
        classes=len(cache.classes),
        fingerprint=cache.fingerprint,
        seconds=round(seconds, 3),
        images_per_second=round(timing.speed, 1),
        pieces=dict(pieces),
        stages={name: round(took, 3) for name, took in timing.stages.items()},
        busy=tuple(round(share, 3) for share in timing.busy),
        bottleneck=timing.bottleneck() if computed else "",
        bad_images=tuple(bad_images(cache)),
    )


def timing(
    engine: "Engine | None", clock: Clock, *, images: int, elapsed: float
) -> Timing:
    """Return what the stages took.

    Parameters
    ----------
    engine : Engine, optional
        What computed; None where nothing had to be.
    clock : Clock
        Of the run.
    images : int
        That were computed.
    elapsed : float
        Seconds from the first image to now, or to the last.

    Returns
    -------
    Timing
        As of now.
    """
    device = engine.device if engine else "cpu"
    return Timing.of(clock, images=images, elapsed=elapsed, device=device)


def tell_size(spec: FeatureSpec, images: int, progress: Progress) -> None:
    """Say how large a cache of maps is going to be; one of features is small.

    Parameters
    ----------
    spec : FeatureSpec
        What a row holds.
    images : int
        N.
    progress : Progress
        Hears the line.
    """
    if spec.map_shape is None:
        return
    numbers = images * spec.views * spec.embed_dim
    views = f"{spec.views} views x " if spec.views > 1 else ""
    progress.say(
        f"{plural(images, 'image')} x {views}{times(spec.map_shape)} {spec.dtype}: "
        f"{size(numbers * np.dtype(spec.dtype).itemsize)}"
    )


def bad_images(cache: FeatureTable) -> list[BadImage]:
    """Return the images of a cache that could not be used.

    Parameters
    ----------
    cache : FeatureTable
        Complete.

    Returns
    -------
    list of BadImage
        In its order, with the reason in general words.
    """
    return [
        BadImage(shown(cache.paths[row]), Status(int(cache.status[row])).reason)
        for row in np.flatnonzero(cache.status != Status.OK).tolist()
    ]


def tell_duplicates(cache: FeatureTable, progress: Progress) -> int:
    """Say in one line what stands more than once in a cache; nothing if nothing does.

    Parameters
    ----------
    cache : FeatureTable
        Complete.
    progress : Progress
        Hears the line.

    Returns
    -------
    int
        Images whose bytes stand in an earlier row, too.
    """
    found = find_duplicates(cache.columns["digests"], cache.status)
    if found.pictures:
        progress.say(found.describe(cache.splits, cache.labels))
    return found.copies


def warn_of_leaks(cache: FeatureTable, progress: Progress) -> None:
    """Warn when the same picture is trained on and measured on.

    Parameters
    ----------
    cache : FeatureTable
        Complete.
    progress : Progress
        Hears how many there are, with both paths of the first.
    """
    found = find_duplicates(cache.columns["digests"], cache.status)
    leaks = found.leaks(cache.splits)
    if leaks:
        first, again = (shown(cache.paths[row]) for row in leaks[0])
        progress.say(
            f"warning: {plural(len(leaks), 'picture')} of train also in val or test, "
            f"such as {first} and {again}: accuracy there promises too much"
        )
