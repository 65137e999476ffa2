"""What an extraction has to tell of the cache that it made."""

import numpy as np

from featcache.core.duplicates import find_duplicates
from featcache.core.errors import BadImage
from featcache.core.progress import Progress
from featcache.core.reports import ExtractReport
from featcache.core.status import Status
from featcache.core.text import plural, shown
from featcache.store.table import FeatureTable


def outcome(
    cache: FeatureTable,
    *,
    computed: int,
    duplicates: int,
    working: float,
    seconds: float,
) -> ExtractReport:
    """Return the report of an extraction.

    Parameters
    ----------
    cache : FeatureTable
        Complete.
    computed : int
        Images that went through the backbone.
    duplicates : int
        See `tell_duplicates`.
    working : float
        Seconds from the first image to the last.
    seconds : float
        Of everything.

    Returns
    -------
    ExtractReport
        Rows that were neither computed nor skipped were reused.
    """
    images, skipped = len(cache), cache.skipped
    return ExtractReport(
        cache=cache.path,
        images=images,
        computed=computed,
        reused=images - computed - skipped,
        skipped=skipped,
        duplicates=duplicates,
        embed_dim=cache.embed_dim,
        classes=len(cache.classes),
        fingerprint=cache.fingerprint,
        seconds=round(seconds, 3),
        images_per_second=round(computed / working, 1) if computed else 0.0,
        bad_images=tuple(bad_images(cache)),
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
