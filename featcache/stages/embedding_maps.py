"""Maps of caches: images as points of the plane, and which of them a model mistakes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.core.errors import SpecError
from featcache.core.features import Rows
from featcache.core.heads import Floats
from featcache.core.libraries import optional
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.progress import SILENT, Progress
from featcache.core.seeds import generator
from featcache.core.text import plural, shown
from featcache.stages.newest import newest_cache
from featcache.stages.scoring import require_split, score_cache, warn_of_fitted_on
from featcache.store.artifacts import Model, open_model
from featcache.store.opening import Paths, open_cache
from featcache.store.table import FeatureTable

if TYPE_CHECKING:
    from featcache.train.projection import Method
    from featcache.viz.picture import Picture

# t-SNE takes half a minute for so many. PCA takes seconds, but of more points one
# hides another.
MOST: "dict[Method, int]" = {"pca": 20_000, "tsne": 5_000}
"""Images that a map has at most, if the user does not say."""

_NAMES = {"pca": "PCA", "tsne": "t-SNE"}
_AXES = {"pca": ("principal component 1", "principal component 2"), "tsne": ("", "")}


@dataclass(frozen=True, eq=False)
class CacheMap:
    """Images of a cache as points of the plane.

    Parameters
    ----------
    cache : FeatureTable
        What it is a map of.
    method : {"pca", "tsne"}
        How.
    points : ndarray of float32, shape (n, 2)
        One for each row.
    rows : ndarray of int64, shape (n,)
        Of the cache, rising.
    images : int
        Of how many usable images they were drawn.
    wrong : ndarray of bool, shape (n,), optional
        Images that a model mistakes; None without one.
    judged : int
        How many of the points the model was measured on.
    """

    cache: FeatureTable
    method: "Method"
    points: Floats
    rows: Rows
    images: int
    wrong: npt.NDArray[np.bool_] | None
    judged: int


def plot_map(  # noqa: PLR0913 - the command's options
    cache: FeatureTable | Paths | None = None,
    *,
    method: "Method" = "tsne",
    model: str | os.PathLike[str] | Model | None = None,
    split: str | None = None,
    most: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> "Picture":
    """Draw the images of a cache as points, those with like features together.

    PCA is linear: far is far. t-SNE keeps neighbours together; distances between
    groups, and their sizes, mean nothing.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        The newest file in ``cache/`` without it.
    method : {"tsne", "pca"}
        How features come down to two numbers.
    model : str, path or Model, optional
        Its mistakes are marked: those on ``split``, on val without one.
    split : {"train", "val", "test"}, optional
        Which part; all without it.
    most : int, optional
        Images drawn at most, a random part of more; 5,000 by t-SNE, 20,000 by PCA
        without it.
    seed : int
        Of that choice and of the method; equal ones give equal pictures.
    progress : Progress
        Hears how many images were drawn, and of letters that no font has.

    Returns
    -------
    Picture
        A matplotlib figure; shows itself in a notebook, ``savefig`` writes it.

    Raises
    ------
    CacheError
        When the cache is missing or damaged, or holds maps.
    CacheMismatchError
        When the model belongs to another cache.
    DataError
        When there is no such split, or no image of it to measure the model on.
    DependencyError
        When matplotlib is not installed.
    SpecError
        When no image is usable, or a number is not possible.
    """
    optional("matplotlib", "drawing", extra="plot")
    found = place(
        cache,
        method=method,
        model=model,
        split=split,
        most=most,
        seed=seed,
        progress=progress,
    )
    return draw(found, progress)


def place(  # noqa: PLR0913 - the command's options
    cache: FeatureTable | Paths | None = None,
    *,
    method: "Method" = "tsne",
    model: str | os.PathLike[str] | Model | None = None,
    split: str | None = None,
    most: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> CacheMap:
    """Place the images of a cache in the plane; nothing is drawn yet.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        As for `plot_map`.
    method : {"tsne", "pca"}
        As for `plot_map`.
    model : str, path or Model, optional
        As for `plot_map`.
    split : {"train", "val", "test"}, optional
        As for `plot_map`.
    most : int, optional
        As for `plot_map`.
    seed : int
        As for `plot_map`.
    progress : Progress
        Hears how many images were drawn.

    Returns
    -------
    CacheMap
        Points, rows, mistakes.

    Raises
    ------
    CacheError
        When the cache is missing or damaged, or holds maps.
    DataError
        When there is no such split, or no image of it to measure the model on.
    SpecError
        When no image is usable, or a number is not possible.
    """
    from featcache.train.projection import project, require_method

    require_method(method)
    most = MOST[method] if most is None else most
    if most < 1:
        raise SpecError(f"at least 1 image must be drawn, got {most}")
    if split is not None:
        require_split(split)
    opened = choose_cache(cache)
    every = opened.features(split).sample_index
    if not len(every):
        of = f" of {split}" if split else ""
        raise SpecError(f"{shown(opened.path)} has no usable image{of} to draw")
    mistaken = (
        None if model is None else _judge(model, opened, split or "val", progress)
    )
    rows = _drawn(every, most, seed)
    if len(rows) < len(every):
        progress.say(
            f"drawn: {len(rows):,} of {plural(len(every), 'image')}, at random (seed "
            f"{seed})"
        )
    wrong = None if mistaken is None else np.isin(rows, mistaken[1])
    judged = 0 if mistaken is None else int(np.isin(rows, mistaken[0]).sum())
    points = project(opened.take(rows), method, seed=seed)
    return CacheMap(opened, method, points, rows, len(every), wrong, judged)


def choose_cache(cache: FeatureTable | Paths | None) -> FeatureTable:
    """Open a cache, the newest one if none is named.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        As for `plot_map`.

    Returns
    -------
    FeatureTable
        Itself where it is open.

    Raises
    ------
    CacheError
        When it is missing or damaged.
    """
    if isinstance(cache, FeatureTable):
        return cache
    return open_cache(newest_cache() if cache is None else cache)


def draw(found: CacheMap, progress: Progress = SILENT) -> "Picture":
    """Draw a map.

    Parameters
    ----------
    found : CacheMap
        From `place`.
    progress : Progress
        Hears of letters that no font has.

    Returns
    -------
    Picture
        To be saved by the caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    from featcache.viz.embedding import MapMarks, draw_map

    cache = found.cache
    splits = cache.splits[found.rows]
    held_out = [name for at, name in enumerate(SPLITS) if at != TRAIN and at in splits]
    marks = MapMarks(
        held_out=splits != TRAIN,
        held_out_name=" and ".join(held_out),
        wrong=found.wrong,
        axes=_AXES[found.method],
        title=f"{shown(cache.name)}: {_NAMES[found.method]} of "
        f"{plural(len(found.rows), 'image')}, {cache.spec.backbone}",
        wrong_name="mistaken" if found.wrong is None else _counted(found),
    )
    classes = [shown(name) for name in cache.classes]
    labels = cache.labels[found.rows]
    return draw_map(found.points, labels, classes, progress.say, marks)


def _counted(found: CacheMap) -> str:
    assert found.wrong is not None
    return f"mistakes: {found.wrong.sum():,} of {found.judged:,}"


def _judge(
    model: str | os.PathLike[str] | Model,
    cache: FeatureTable,
    split: str,
    progress: Progress,
) -> tuple[Rows, Rows]:
    """Return the rows that a model was measured on, and those that it mistakes."""
    opened = model if isinstance(model, Model) else open_model(Path(model))
    scored = score_cache(opened, cache, split)
    warn_of_fitted_on(opened, split, progress)
    rows = cache.rows(split)
    return rows, rows[~scored.right]


def _drawn(rows: Rows, most: int, seed: int) -> Rows:
    """Return as many rows as there is room for, in order."""
    if len(rows) <= most:
        return rows
    chosen = generator(seed, "map rows").choice(rows, most, replace=False)
    return np.sort(chosen)
