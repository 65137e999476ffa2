"""Predictions for real work: kept as they come, resumed, of folders that fill up."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

import numpy as np

from featcache.core.digests import array_digest
from featcache.core.errors import Interrupted
from featcache.core.predictions import Entry, ImageFile, PredictReport
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.stages.guarding import guarded
from featcache.stages.prediction import model_extractor, require_top
from featcache.stages.predictor import Predictor
from featcache.stages.watching import Watcher
from featcache.store.artifacts import Model, open_model
from featcache.store.heads import pack_head
from featcache.store.predictions import PredictionFile

Place = str | os.PathLike[str]
Tell = Callable[[Entry], None]


def model_fingerprint(model: Model) -> str:
    """Return the identity of all that a model's predictions depend on.

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    str
        16 hexadecimal digits: equal for a model that was trained again to the bit.
    """
    tensors, described = pack_head(model.head)
    said = {
        "classes": model.classes,
        "view": asdict(model.view),
        "backbone": model.backbone,
        "weights_sha256": model.weights_sha256,
        "precision": model.precision,
        "head": described,
        "shapes": [[name, tensors[name].shape] for name in sorted(tensors)],
    }
    text = np.frombuffer(dumps(said, sort_keys=True).encode(), np.uint8)
    return array_digest(text, *(tensors[name] for name in sorted(tensors))).hex()[:16]


@dataclass(eq=False)
class PredictionRun:
    """Predictions on their way into a file; made by `predicting`.

    Parameters
    ----------
    predictor : Predictor
        The model at work.
    file : PredictionFile
        Open.
    progress : Progress
        Hears how far the work is.
    out : Path, optional
        The file's name, if the user has given one.
    """

    predictor: Predictor
    file: PredictionFile
    progress: Progress
    out: Path | None
    _images: int = 0
    _reused: int = 0
    _bad: int = 0
    _seconds: float = 0.0

    def work(self, images: Sequence[ImageFile], tell: Tell) -> None:
        """Predict what the file does not have yet; once in a run.

        Parameters
        ----------
        images : sequence of ImageFile
            See `featcache.stages.image_files.list_images`.
        tell : callable
            Called with each image that is predicted now, in order.

        Raises
        ------
        Interrupted
            On Ctrl-C, when what is done is kept.
        """
        rows = self.predictor.block_rows(len(images))
        todo, again = _remaining(images, self.file, rows)
        self._reused = len(images) - len(todo)
        self._bad = sum(map(self.file.is_bad, images))
        self.file.forget()
        self.progress.begin("predict", len(images), unit="image", done=self._reused)
        try:
            self._keep([*again, *todo], rows, len(again), tell)
        except KeyboardInterrupt:
            if self.out is None:
                raise
            raise Interrupted(
                f"stopped; what is done is kept in {shown(self.out)}: run the same "
                "command again to go on"
            ) from None
        finally:
            self.progress.end()
        self._images = len(images)
        self.file.finish()

    def watch(
        self,
        folder: Path,
        interval: float,
        tell: Tell,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Predict the images of a folder as they arrive, until Ctrl-C.

        Parameters
        ----------
        folder : Path
            Watched with all folders below it.
        interval : float
            Seconds between two looks; a file that is the same at both is taken.
        tell : callable
            Called with each image that is predicted.
        sleep : callable
            Waits so many seconds.

        Raises
        ------
        DataError
            When there is no such folder.
        """
        watcher = Watcher(folder, self.file.is_known, self.progress)
        self.progress.begin("watch", 0, unit="image")
        try:
            while True:
                ready = watcher.look()
                self._keep(ready, self.predictor.block_rows(len(ready)), 0, tell)
                self._images += len(ready)
                sleep(interval)
        except KeyboardInterrupt:  # the way to end it
            pass
        finally:
            self.progress.end()
        self.file.finish()

    @property
    def report(self) -> PredictReport:
        """What became of the images so far."""
        new = self._images - self._reused
        return PredictReport(
            out=self.out,
            images=self._images,
            reused=self._reused,
            bad=self._bad,
            seconds=round(self._seconds, 3),
            images_per_second=round(new / self._seconds, 1) if new else 0.0,
        )

    def _keep(
        self, images: Sequence[ImageFile], rows: int, known: int, tell: Tell
    ) -> None:
        """Predict images and keep all but the first, which are in the file already."""
        began = time.perf_counter()
        for entries in self.predictor.stream(images, rows) if images else ():
            new, known = entries[known:], max(0, known - len(entries))
            # Before they are kept: what a reader has not seen must not count as done.
            for entry in new:
                tell(entry)
            self.file.append(new)
            self._bad += sum(not entry.ranked for entry in new)
            self.progress.advance(len(new))
        self._seconds += time.perf_counter() - began


def _remaining(
    images: Sequence[ImageFile], file: PredictionFile, rows: int
) -> tuple[Sequence[ImageFile], Sequence[ImageFile]]:
    """Return what is left to do, and what is to be computed again before it.

    An interrupted run has done the first images, and goes on with the forward passes
    that it would have made: the same images in each, since their number can show in
    the last digit.
    """
    todo = [image for image in images if not file.is_known(image)]
    done = len(images) - len(todo)
    if not todo or todo[0] is not images[done]:
        return todo, []
    return todo, images[done - done % rows : done]


@contextmanager
def predicting(  # noqa: PLR0913 - settings, all named
    model: Place,
    *,
    out: Path | None = None,
    top: int = 1,
    overwrite: bool = False,
    weights: Place | None = None,
    device: str = "auto",
    expected: int | None = None,
    progress: Progress,
) -> Iterator[PredictionRun]:
    """Open a file for a model's predictions.

    Parameters
    ----------
    model : str or path
        A model file, or the folder of a run.
    out : Path, optional
        ``.csv``, ``.jsonl`` or ``.parquet``; a temporary file without it.
    top : int
        K, the most probable classes that are kept of each image.
    overwrite : bool
        Whether predictions that are there are replaced.
    weights : str or path, optional
        Where the backbone's weights are now.
    device : str
        Where the network runs.
    expected : int, optional
        Images to come; very many, if nobody knows.
    progress : Progress
        Hears how far the work is.

    Yields
    ------
    PredictionRun
        To be given images or a folder to watch.

    Raises
    ------
    ModelError
        When the weights found are not those that the model belongs to.
    DataError
        When the file holds something else.
    SpecError
        When K is below 1, or the file's name has another ending.
    """
    require_top(top)
    opened = open_model(Path(model))
    top = min(top, len(opened.classes))
    with guarded() as (guard, folder):
        path = folder / "predictions.jsonl" if out is None else out
        identity = model_fingerprint(opened)
        with PredictionFile(path, identity, top, overwrite=overwrite) as file:
            extractor = model_extractor(opened, weights, device, progress, expected)
            predictor = Predictor(extractor, opened, top, guard)
            yield PredictionRun(predictor, file, progress, out)
