"""`finetune`: a network trained online on augmented images, and the best epoch kept."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.catalog import DEFAULT_BACKBONE, IMAGENET, architecture
from featcache.core.errors import Interrupted, SpecError
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import EpochRecord, TrainReport
from featcache.core.specs import Exif, FinetuneSpec
from featcache.core.text import shown
from featcache.stages.datasets import resolve_data
from featcache.stages.online import OnlineParts
from featcache.stages.probing import Trained
from featcache.stages.runs import run_folder, save_run
from featcache.stages.sources import RANDOM, find_weights
from featcache.store.files import storing
from featcache.vision.scan import scan

if TYPE_CHECKING:
    from featcache.train.loop import Best


def finetune(  # noqa: PLR0913 - the command's options
    data: str | os.PathLike[str] = "hymenoptera",
    spec: FinetuneSpec | None = None,
    *,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | os.PathLike[str] = IMAGENET,
    device: str = "auto",
    exif: Exif = "apply",
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train backbone and head, or the head alone, on augmented images.

    Before the first epoch every image is decoded once, so that a damaged one is named
    at the start and not hours later.

    Parameters
    ----------
    data : str or path
        A folder of class folders, with or without ``train``/``val``/``test``; or a
        known data set: ``hymenoptera``, ``hotdog``, ``digits``.
    spec : FinetuneSpec, optional
        What is trained and how; with ``from_scratch`` the weights are random.
    backbone : str
        A torchvision ResNet, such as ``resnet50``.
    weights : str or path
        Where training starts: ``imagenet``, an enum name such as ``IMAGENET1K_V2``,
        ``random:SEED``, or a ``.pth`` or ``.safetensors`` file.
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    exif : {"apply", "ignore"}
        Whether images are turned as their camera says.
    out : str or path, optional
        Folder for model, report and history; ``runs/...`` without it.
    progress : Progress
        Hears how far the work is, and one line per epoch.

    Returns
    -------
    Trained
        The weights of the epoch that was best on ``val``, and where its files are.

    Raises
    ------
    BadImagesError
        When images cannot be used; names all of them.
    TrainingError
        When the loss is no longer finite.
    FeatcacheError
        For everything else that a user can mend.
    Interrupted
        After Ctrl-C; if an epoch was complete, the best weights so far are kept.
    """
    from featcache.vision.forward import pick_device
    from featcache.vision.loaders import Threads

    began = time.perf_counter()
    spec = spec or FinetuneSpec()
    _check_settings(spec)
    start = RANDOM if spec.from_scratch else weights
    architecture(backbone)  # slips of the keys show before anything is downloaded
    pick_device(device)
    manifest = scan(resolve_data(data, progress=progress))
    progress.say(manifest.describe())
    source = find_weights(backbone, start, exif=exif, seed=spec.seed, progress=progress)
    name = f"finetune-{manifest.root.resolve().name}-{backbone}"
    with _new_run(name, out) as folder, Threads(spec.workers) as threads:
        parts = OnlineParts(manifest, source, spec, device, threads, progress)
        return _Run(parts, folder, began).finish()


def _check_settings(spec: FinetuneSpec) -> None:
    if not spec.full and spec.head_lr_mult != 1:
        raise SpecError(
            f"head_lr_mult is {spec.head_lr_mult:g}, but where the backbone is frozen "
            "only the head has a learning rate; set lr, or train the whole network"
        )


@contextmanager
def _new_run(name: str, out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Make the run's folder and try it now, not hours later; leave no empty one."""
    existed = out is not None and Path(out).is_dir()
    folder = run_folder(name, out)
    try:
        with storing(folder), tempfile.TemporaryFile(dir=folder):
            pass
        yield folder
    finally:
        if not existed:
            with suppress(OSError):  # it is not empty: the run is kept
                folder.rmdir()


@dataclass(eq=False)
class _Run:
    """One training: its parts, and the steps that put them together."""

    parts: OnlineParts
    folder: Path
    began: float  # time.perf_counter()
    history: list[EpochRecord] = field(default_factory=list)

    def finish(self) -> Trained:
        """Train, measure and save; on Ctrl-C save the best so far."""
        from featcache.train.loop import Best, repeatable

        self.parts.check_images()
        best = Best(self.parts.classifier.trained)
        try:
            with repeatable():
                self.train(best)
                best.restore()
                train, test = map(self.parts.accuracy, ("train", "test"))
        except KeyboardInterrupt:
            raise self.interrupted(best) from None
        assert train is not None
        return self.save(best, train, test, interrupted=False)

    def train(self, best: "Best") -> None:
        """Train to the last epoch, and tell of each."""
        from featcache.train.loop import fit_epochs

        parts = self.parts
        records = fit_epochs(
            parts.classifier, parts.train, parts.val(), parts.spec, parts.prepare
        )
        for epoch in range(parts.spec.epochs):
            task = f"epoch {epoch + 1}/{parts.spec.epochs}"
            with parts.reporting(task, parts.images_in(epoch)):
                record = next(records)
            self.history.append(record)
            best.offer(record)
            parts.progress.say(epoch_line(record, parts.spec.epochs))

    def interrupted(self, best: "Best") -> Interrupted:
        """Save what there is; return what to tell the user."""
        if best.record is None:
            return Interrupted(
                "stopped before the first epoch was done; nothing was written"
            )
        best.restore()
        # Not measured on the fixed views: whoever stops does not want to wait.
        accuracy = best.record.train_accuracy
        trained = self.save(best, accuracy, None, interrupted=True)
        done = f"{len(self.history)} of {self.parts.spec.epochs}"
        return Interrupted(
            f"stopped after {done} epochs; the best so far, epoch {best.record.epoch}, "
            f"is kept in {shown(trained.model)}"
        )

    def save(
        self, best: "Best", train: float, test: float | None, *, interrupted: bool
    ) -> Trained:
        """Write model, report and history; the classifier holds the best weights."""
        assert best.record is not None
        parts = self.parts
        report = TrainReport(
            model=Path(),  # known once it is saved
            solver="finetune-full" if parts.spec.full else "finetune-head-only",
            epochs=len(self.history),
            best_epoch=best.record.epoch,
            train_accuracy=train,
            val_accuracy=best.record.val_accuracy,
            val_loss=best.record.val_loss,
            test_accuracy=test,
            seconds=round(time.perf_counter() - self.began, 3),
            history=tuple(self.history),
        )
        model = parts.model()
        settings = {**parts.settings(), "interrupted": interrupted}
        report = save_run(self.folder, model, report, settings)
        return Trained(report.model, model.head, report)


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """Return one epoch's figures for people.

    Parameters
    ----------
    record : EpochRecord
        The epoch.
    epochs : int
        Of how many.

    Returns
    -------
    str
        One line; lines of one training are aligned.
    """
    width = len(str(epochs))
    line = (
        f"epoch {record.epoch:{width}}/{epochs}  lr {record.lr:g}  "
        f"train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}"
    )
    if record.val_loss is not None:
        line += f"  val loss {record.val_loss:.3f} acc {record.val_accuracy:.3f}"
    return f"{line}  {record.seconds:.1f} s"
