"""Which of a cache's views a head is trained on."""

from featcache.core.errors import SpecError
from featcache.core.features import Features
from featcache.core.text import plural, shown
from featcache.core.viewed import ViewedFeatures, view_counts
from featcache.store.table import FeatureTable


def used_views(cache: FeatureTable, views: int | None, *, by_epochs: bool) -> int:
    """Return how many views of each training image a solver uses.

    Parameters
    ----------
    cache : FeatureTable
        Has up to V of them.
    views : int, optional
        As asked for; without it all, if the solver takes one each epoch.
    by_epochs : bool
        Whether it does; other solvers use view 0.

    Returns
    -------
    int
        From 1 to V: the first views are used.

    Raises
    ------
    SpecError
        When the cache or the solver has no such number.
    """
    most = cache.spec.views
    if views is None:
        return most if by_epochs else 1
    if not 1 <= views <= most:
        raise SpecError(
            f"views must be from 1 to {most}, got {views}: {shown(cache.path)} has "
            f"{plural(most, 'view')} of each training image; 'featcache extract "
            "--views' makes more"
        )
    if views > 1 and not by_epochs:
        raise SpecError(
            f"views must be 1, got {views}: only the solver sgd has epochs, each of "
            "which takes another view"
        )
    return views


def with_views(cache: FeatureTable, features: Features, views: int) -> Features:
    """Return features of which each epoch sees one of several views.

    Parameters
    ----------
    cache : FeatureTable
        Where they are from.
    features : Features
        Of view 0.
    views : int
        How many of the views of training images are used.

    Returns
    -------
    Features
        The same ones where that is one. Rows of val have view 0 alone.
    """
    if views == 1:
        return features
    rows = features.sample_index
    counts = view_counts(cache.splits[rows], views)
    return ViewedFeatures(cache.source, features.y, rows, counts)
