"""What training images there must be, and how few of them may be drawn."""

import numpy as np

from featcache.core.errors import SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.shots import Counts, draw_shots
from featcache.core.text import listed, plural, shown
from featcache.store.table import FeatureTable


def require_classes(cache: FeatureTable, train: Features) -> None:
    """Refuse a cache of one class, or with a class that has no training image.

    Parameters
    ----------
    cache : FeatureTable
        For the names.
    train : Features
        Its usable training images.

    Raises
    ------
    TrainingError
        Naming the classes.
    """
    classes, where = cache.classes, shown(cache.path)
    empty = _classes_with(cache, train, 0)
    if empty:
        raise TrainingError(
            f"{where} has no usable training image of {empty}; "
            "a head needs at least one of every class"
        )
    if len(classes) == 1:
        raise TrainingError(
            f"{where} has a single class, {shown(classes[0])}; there is nothing to "
            "tell apart: extract a folder with two class folders or more"
        )


def require_two(cache: FeatureTable, train: Features, remedy: str) -> None:
    """Refuse classes of a single image where one of each class must be held out.

    Parameters
    ----------
    cache : FeatureTable
        For the names.
    train : Features
        What is trained on.
    remedy : str
        What to do instead.

    Raises
    ------
    TrainingError
        Naming the classes.
    """
    single = _classes_with(cache, train, 1)
    if single:
        raise TrainingError(
            f"{shown(cache.path)}: there is a single training image of {single}; none "
            f"can be held out to choose on: {remedy}"
        )


def take_shots(
    cache: FeatureTable, train: Features, shots: int, *, seed: int
) -> Features:
    """Return as many training images of each class.

    Parameters
    ----------
    cache : FeatureTable
        For the names.
    train : Features
        All there are.
    shots : int
        How many of each class, at least 1.
    seed : int
        Of the choice.

    Returns
    -------
    Features
        In the order of train.

    Raises
    ------
    SpecError
        When there is no such number.
    TrainingError
        Naming the class that has fewer.
    """
    if shots < 1:
        raise SpecError(f"shots must be at least 1, got {shots}")
    require_shots(cache, np.bincount(train.y, minlength=len(cache.classes)), shots)
    return train.subset(draw_shots(train.y, shots, seed=seed))


def require_shots(cache: FeatureTable, counts: Counts, shots: int) -> None:
    """Refuse to draw more training images of a class than it has.

    Parameters
    ----------
    cache : FeatureTable
        For the names.
    counts : ndarray of int, shape (C,)
        Training images of each class.
    shots : int
        How many are drawn of each.

    Raises
    ------
    TrainingError
        Naming the class that has fewest.
    """
    least = int(counts.argmin())
    if counts[least] < shots:
        images = plural(int(counts[least]), "usable training image")
        raise TrainingError(
            f"{shown(cache.path)} has {images} of {shown(cache.classes[least])}, fewer "
            f"than the {shots:,} of each class that were asked for"
        )


def _classes_with(cache: FeatureTable, train: Features, count: int) -> str:
    """Name the classes with so many training images."""
    counts = np.bincount(train.y, minlength=len(cache.classes))
    return listed(shown(cache.classes[c]) for c in np.flatnonzero(counts == count))
