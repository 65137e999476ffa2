"""`show`: the images of a data set as the network sees them, in a grid."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.core.errors import BadImagesError, DataError, SpecError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.manifest import SPLITS, TRAIN, Manifest
from featcache.core.progress import SILENT, Progress
from featcache.core.sources import Source
from featcache.core.specs import ViewSpec
from featcache.core.text import closest, listed, plural, shown
from featcache.core.tiles import Tile
from featcache.stages.datasets import data_source
from featcache.stages.recipe import DEFAULT_DATA
from featcache.stages.scoring import is_cache, require_split
from featcache.stages.tiles import TileSource, cache_source
from featcache.store.opening import open_cache
from featcache.store.table import FeatureTable
from featcache.vision.sources.opening import source_is_there

if TYPE_CHECKING:
    from featcache.viz.picture import Picture

Place = str | os.PathLike[str]
Rows = npt.NDArray[np.int64]

MOST_CLASSES, MOST_TILES = 24, 240  # of one picture: a page is to be looked at
_SIDE = 72.0  # points, of the tiles of a class; those of a batch are larger
_LINE = 8  # tiles to a line of a class


@dataclass(frozen=True, eq=False)
class _Samples:
    """Labelled samples, of a cache or of what caches are made of."""

    source: Source
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.uint8]
    tiles: TileSource

    @property
    def name(self) -> str:
        """What is shown, for people."""
        return shown(self.source.name)


def show(  # noqa: PLR0913 - the command's options
    data: Place | FeatureTable = DEFAULT_DATA,
    *,
    augmented: bool = False,
    per_class: int = 4,
    last: bool = False,
    split: str = "train",
    classes: Sequence[str] | None = None,
    batch_size: int = FinetuneSpec.batch_size,
    seed: int = FinetuneSpec.seed,
    progress: Progress = SILENT,
) -> "Picture":
    """Show images as the network sees them: of each class, or a batch of training.

    Parameters
    ----------
    data : str, path or FeatureCache
        A folder, a known data set, another source that `extract` takes, or a cache,
        whose images are looked for where they were when it was made.
    augmented : bool
        Show the first batch on which `finetune` trains with this seed, as it augments
        it; without it, some images of each class in their fixed view.
    per_class : int
        How many images of each class.
    last : bool
        The last ones of each class in place of the first.
    split : {"train", "val", "test"}
        Of which part; what is augmented is of train.
    classes : sequence of str, optional
        Which ones, also as messages print them; as many as a page has room for
        without it.
    batch_size : int
        Of the augmented batch.
    seed : int
        Of the augmented batch.
    progress : Progress
        Told how many classes are not shown, and of letters that no font has.

    Returns
    -------
    Picture
        A matplotlib figure, which notebooks show as it is. An image that cannot be
        shown has a tile that says why.

    Raises
    ------
    DataError
        When there is no such folder, class or split, or no image in it.
    DependencyError
        When matplotlib is not installed.
    SpecError
        When a number is not possible, or an option does nothing.
    """
    require_split(split)
    _require_sense(augmented, per_class, last, split, classes, batch_size)
    samples = _samples(data, progress)
    if augmented:
        return _augmented(samples, batch_size, seed, progress)
    return _by_class(samples, per_class, last, split, classes, progress)


def _require_sense(
    augmented: bool,
    per_class: int,
    last: bool,
    split: str,
    classes: Sequence[str] | None,
    batch_size: int,
) -> None:
    for name, number in {"per_class": per_class, "batch_size": batch_size}.items():
        if not 1 <= number <= MOST_TILES:
            raise SpecError(f"{name} must be from 1 to {MOST_TILES}, got {number}")
    if augmented and (last or classes is not None or split != SPLITS[TRAIN]):
        raise SpecError(
            "augmented shows a batch of train, of whatever classes it has; leave out "
            "split, classes and last"
        )


def _samples(data: Place | FeatureTable, progress: Progress) -> _Samples:
    if isinstance(data, FeatureTable):
        return _of_cache(data, progress)
    if is_cache(data):
        with open_cache(data) as cache:
            return _of_cache(cache, progress)
    source = data_source(data, progress=progress)
    manifest = source.scan()
    return _Samples(
        source,
        manifest.classes,
        manifest.labels,
        manifest.splits,
        TileSource.of_manifest(manifest, ViewSpec()),
    )


def _of_cache(cache: FeatureTable, progress: Progress) -> _Samples:
    source = cache_source(cache, progress)
    if source is None or not source_is_there(source.address):
        where = "" if source is None else f": there is no {shown(source.address)}"
        raise DataError(
            f"the folder that {shown(cache.path)} was made of is not known here"
            f"{where}; name the folder of images instead"
        )
    tiles = TileSource.of_cache(cache, source)
    return _Samples(source, cache.classes, cache.labels, cache.splits, tiles)


def _by_class(
    samples: _Samples,
    per_class: int,
    last: bool,
    split: str,
    classes: Sequence[str] | None,
    progress: Progress,
) -> "Picture":
    from featcache.viz.grids import Cell, Section, draw_grid

    room = min(MOST_CLASSES, max(1, MOST_TILES // per_class))
    labels = _chosen(samples.classes, classes)
    in_split = samples.splits == SPLITS.index(split)
    if not in_split.any():
        raise DataError(f"{samples.name} has no image in split {split}")
    sections = []
    for label in labels[:room]:
        rows = np.flatnonzero(in_split & (samples.labels == label))
        part = rows[-per_class:] if last else rows[:per_class]
        cells = [Cell(tile) for tile in samples.tiles.tiles(part.tolist())]
        heading, count = shown(samples.classes[label]), plural(len(rows), "image")
        sections.append(Section(cells, heading, count))
    crop = samples.tiles.view.crop
    number = "image" if per_class == 1 else f"{per_class} images"
    which = f"the {'last' if last else 'first'} {number} of each class"
    notes = [f"{split}: {which}, as the network sees them ({crop} x {crop} pixels)"]
    if len(labels) > room:
        notes.append(f"the first {room} of {plural(len(labels), 'class')}")
        following = shown(samples.classes[labels[room]])
        progress.say(f"{notes[-1]}; choose others with --classes '{following},...'")
    return draw_grid(
        sections,
        title=samples.name,
        notes=notes,
        across=ceil(per_class / ceil(per_class / _LINE)),
        side=_SIDE,
        say=progress.say,
    )


def _chosen(known: tuple[str, ...], names: Sequence[str] | None) -> list[int]:
    """Return the labels of class names, in the order asked for."""
    if names is None:
        return list(range(len(known)))
    if isinstance(names, str) or not names:
        raise SpecError(f"classes must be a list of class names, got {names!r}")
    # As they are printed, too: nobody types a line break or bytes that are no text.
    printable = [shown(name) for name in known]
    labels = []
    for name in names:
        if name not in (*known, *printable):
            raise DataError(
                f"there is no class '{shown(name)}'{closest(shown(name), printable)} "
                f"(known: {listed(printable)})"
            )
        labels.append((known if name in known else printable).index(name))
    return labels


def _augmented(
    samples: _Samples, batch_size: int, seed: int, progress: Progress
) -> "Picture":
    from featcache.viz.grids import Cell, Section, draw_grid

    manifest = samples.source.scan()  # as finetune will: a cache may be older
    batch = list(first_batch(manifest, samples.tiles.view, batch_size, seed))
    names = [shown(manifest.classes[label]) for label, _ in batch]
    cells = [Cell(tile, name) for (_, tile), name in zip(batch, names, strict=True)]
    spec = f"batch size {batch_size}, seed {seed}"
    notes = [f"the first batch that finetune trains on, augmented ({spec})"]
    across = min(8, max(4, ceil(len(cells) ** 0.5)))
    return draw_grid(
        [Section(cells)],
        title=samples.name,
        notes=notes,
        across=across,
        say=progress.say,
    )


def first_batch(
    manifest: Manifest, view: ViewSpec, batch_size: int, seed: int
) -> Iterator[tuple[int, Tile]]:
    """Give the images of the first batch of `finetune`, augmented as it does.

    Parameters
    ----------
    manifest : Manifest
        As `finetune` would scan it.
    view : ViewSpec
        The size of a random view, and the EXIF policy.
    batch_size : int
        How many images, at most.
    seed : int
        Order and views follow from it.

    Yields
    ------
    (int, Tile)
        Label and picture; a note in place of an image that cannot be used, over which
        `finetune` would stop.
    """
    from featcache.vision.decoding import Source
    from featcache.vision.loaders import Loader
    from featcache.vision.pixels import Images
    from featcache.vision.shelves import Shelf
    from featcache.vision.threads import Threads
    from featcache.vision.viewer import Viewer

    rows = np.flatnonzero(manifest.splits == TRAIN)
    # The loader of finetune itself, of images that are decoded when they are asked for.
    source = Source(manifest, Viewer.fastest(view, batch_size))
    with Threads() as threads, Images(source, rows, (), Shelf("off")) as images:
        loader = Loader(images, rows, batch_size, threads)
        read = loader.reader(0, seed=seed)

        def tile(row: int) -> Tile:
            try:
                return Tile(read(row))
            except BadImagesError as error:
                return Tile(None, error.images[0].reason)

        batch = loader.shares(0, seed=seed)[0].tolist()
        for row, made in zip(batch, threads.ordered(tile, batch), strict=True):
            yield int(manifest.labels[row]), made
