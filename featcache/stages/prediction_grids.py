"""Grids of predictions: mistakes first, for `plot_predictions` and ``--grid``."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.errors import BadImage
from featcache.core.predictions import Entry, ImageFile, Prediction
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import ViewSpec
from featcache.core.text import shown
from featcache.stages.gallery import GRID_SIZE, Gallery
from featcache.stages.pictures import save_picture
from featcache.stages.predicting import PredictionRun
from featcache.stages.prediction import Predictions
from featcache.store.artifacts import Model, open_model

if TYPE_CHECKING:
    from featcache.viz.picture import Picture

Tell = Callable[[Entry], None]


def plot_predictions(
    predictions: Predictions | Iterable[Prediction | BadImage],
    model: str | os.PathLike[str] | Model | None = None,
    *,
    truth: Mapping[str, str] | None = None,
    grid_size: int = GRID_SIZE,
    progress: Progress = SILENT,
) -> "Picture":
    """Draw predictions: the most confident mistakes first, then right ones.

    Parameters
    ----------
    predictions : Predictions, or iterable of Prediction and BadImage
        From `predict`, or from `iter_predictions`, of which few are in memory.
    model : str, path or Model, optional
        Which made them. With it the truth of an image is the folder that it lies in,
        where that is called as a class.
    truth : mapping of str to str, optional
        Class names by path, as the predictions have it.
    grid_size : int
        How many images are drawn at most.
    progress : Progress
        Told of letters that no font has.

    Returns
    -------
    Picture
        A matplotlib figure, which notebooks show as it is. An image that is not there
        any more has a tile that says so.

    Raises
    ------
    DataError
        When there is no prediction.
    DependencyError
        When matplotlib is not installed.
    SpecError
        When the number is not possible.
    """
    opened = open_model(Path(model)) if isinstance(model, str | os.PathLike) else model
    gallery = Gallery(_names(opened), grid_size, truth or {})
    if isinstance(predictions, Predictions):
        predictions = predictions.predictions
    for told in predictions:
        if isinstance(told, Prediction):
            gallery.offer(told.path, told.label, told.probability)
    view = opened.view if opened else ViewSpec()
    return gallery.draw("predictions", view, {}, progress)


def _names(model: Model | None) -> frozenset[str]:
    return frozenset(map(shown, model.classes)) if model else frozenset()


@contextmanager
def with_grid(
    file: Path | None,
    grid_size: int,
    run: PredictionRun,
    images: Sequence[ImageFile],
    tell: Tell,
) -> Iterator[Tell]:
    """Draw what is predicted in the ``with``, when it is over.

    Parameters
    ----------
    file : Path, optional
        From `featcache.stages.pictures.picture_file`; nothing is drawn without it.
    grid_size : int
        How many images are drawn at most.
    run : PredictionRun
        Before it works; what its file has already is drawn as well.
    images : sequence of ImageFile
        What it will be given.
    tell : callable
        Called with each image that is predicted.

    Yields
    ------
    callable
        To be called instead.
    """
    if file is None:
        yield tell
        return
    model = run.predictor.model
    gallery = Gallery(_names(model), grid_size)

    def told(entry: Entry) -> None:
        tell(entry)
        _offer(gallery, entry)

    for entry in _there_already(run, images):
        _offer(gallery, entry)
    yield told
    if not gallery.paths:
        run.progress.say(f"no grid {shown(file)}: no image could be used")
        return
    drawn = frozenset(gallery.paths)
    names = {shown(i.name): i.name for i in images if shown(i.name) in drawn}
    picture = gallery.draw("predictions", model.view, names, run.progress)
    save_picture(picture, file)
    run.progress.say(f"{shown(file)}: {gallery.describe()}; {gallery.source()}")


def _offer(gallery: Gallery, entry: Entry) -> None:
    if entry.ranked:
        gallery.offer(entry.path, *entry.ranked[0])


def _there_already(run: PredictionRun, images: Sequence[ImageFile]) -> Iterator[Entry]:
    """Yield what the file says of the images, where they are still the same."""
    known = {shown(i.name): i[1:] for i in images if run.file.is_known(i)}
    if known:
        for entry in run.file.entries():
            if known.get(entry.path) == (entry.size, entry.mtime_ns):
                yield entry
