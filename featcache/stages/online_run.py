"""One training from its first epoch, or its last checkpoint, to its files."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.core.errors import (
    BadImagesError,
    CheckpointError,
    FeatcacheError,
    Interrupted,
)
from featcache.core.reports import EpochRecord, TrainReport
from featcache.core.text import plural, shown
from featcache.stages import checkpointing
from featcache.stages.checkpointing import Course
from featcache.stages.measuring import Measured
from featcache.stages.online import OnlineParts
from featcache.stages.probing import Trained
from featcache.stages.runs import LAST_FILE, MODEL_FILE, save_run
from featcache.store.artifacts import save_model

if TYPE_CHECKING:
    from featcache.train.keeping import Best
    from featcache.train.loop import Passed, Trainer

_BATCH_NORM = {
    "train": "statistics of trained stages move, those of frozen stages do not",
    "frozen": "no statistics move",
    "drift": "all statistics move, also those of frozen stages",
}


@dataclass(eq=False)
class OnlineRun:
    """One training: its parts, and the order in which they work.

    Parameters
    ----------
    parts : OnlineParts
        What it consists of.
    folder : Path
        Of the run.
    began : float
        ``time.perf_counter()`` at the start.
    """

    parts: OnlineParts
    folder: Path
    began: float
    course: Course = field(default_factory=Course)
    last_is_kept: bool = False

    def finish(self) -> Trained:
        """Train, measure and save; after Ctrl-C save the best so far.

        Returns
        -------
        Trained
            The weights of the best epoch, and where their files are.

        Raises
        ------
        Interrupted
            After Ctrl-C.
        TrainingError
            When the loss is no longer finite; the epochs before are kept.
        CheckpointError
            When the folder holds an unfinished training of another recipe.
        """
        from featcache.train.keeping import Best
        from featcache.train.loop import repeatable

        best = Best(self.parts.network.classifier)
        try:
            with repeatable():
                self._train(best)
                self._keep_last()
                best.restore()
                return self._save(best)
        except KeyboardInterrupt:
            raise Interrupted(self._broken_off(best, "stopped")) from None
        except FeatcacheError as error:
            if best.record is not None:
                error.args = (self._broken_off(best, str(error)), *error.args[1:])
            raise

    def _train(self, best: "Best") -> None:
        """Train to the last epoch, with a checkpoint after each."""
        parts, course = self.parts, self.course
        trainer = parts.trainer()
        found = checkpointing.open_checkpoint(self.folder)
        if found is not None:
            self.course = course = checkpointing.resume(
                found, parts.described, trainer, best
            )
            done = f"{len(course.history)} of {parts.spec.epochs}"
            parts.progress.say(f"going on after {done} epochs: {shown(self.folder)}")
        if parts.ranks.told(len(course.history)) != len(course.history):
            raise CheckpointError(
                f"the processes do not find the same checkpoint in {shown(self.folder)}"
                "; name a folder with --out that all machines share"
            )
        for epoch in range(len(course.history), parts.spec.epochs):
            if self._patience_is_over(best):
                break
            record = self._epoch(trainer, epoch)
            course.history.append(record)
            best.offer(record)
            if parts.ranks.main:
                self._checkpoint(trainer, best)
            parts.progress.say(epoch_line(record, parts.spec.epochs))

    def _epoch(self, trainer: "Trainer", epoch: int) -> EpochRecord:
        """Train for one epoch and measure on val."""
        spec, began = self.parts.spec, time.perf_counter()
        with self.parts.reporting(f"epoch {epoch + 1}/{spec.epochs}", "train", "val"):
            passed = self._passed(trainer, epoch)
            val = self._measured("val")
        self.course.train_seconds += passed.seconds
        return EpochRecord(
            epoch=epoch + 1,
            lr=spec.lr * spec.lr_factor(epoch),
            train_loss=passed.loss,
            train_accuracy=passed.accuracy,
            val_loss=None if val is None else val.loss,
            val_accuracy=None if val is None else val.accuracy,
            seconds=time.perf_counter() - began,
        )

    def _passed(self, trainer: "Trainer", epoch: int) -> "Passed":
        """Train for one epoch; begin it again without images that cannot be read now.

        Only where every epoch reads the files can one have been damaged meanwhile.
        """
        from featcache.train.keeping import resume_training, training_arrays

        if not self._may_leave_out:
            return trainer.train_epoch(epoch, self.parts.feed.train(epoch))
        before = training_arrays(trainer.model, trainer.optimizer)
        scaler = trainer.scaler.state_dict()
        while True:
            try:
                return trainer.train_epoch(epoch, self.parts.feed.train(epoch))
            except BadImagesError as error:
                self._leave_out(error, ", and the epoch begins again without it")
            resume_training(trainer.model, trainer.optimizer, before)
            trainer.scaler.load_state_dict(scaler)
            trainer.images = self.parts.feed.count("train")

    def _measured(self, split: str) -> Measured | None:
        """Measure the classifier as it is, without images that cannot be read now."""
        while True:
            try:
                return self.parts.measure(split)
            except BadImagesError as error:
                if not self._may_leave_out:
                    raise
                self._leave_out(error, "")

    @property
    def _may_leave_out(self) -> bool:
        """Whether an image that was damaged meanwhile is left out."""
        # Several processes would have to leave it out together.
        return self.parts.request.on_error == "skip" and self.parts.ranks.count == 1

    def _leave_out(self, error: BadImagesError, consequence: str) -> None:
        """Go on without the images of an error, and say so."""
        self.parts = self.parts.without(error.images)
        self.parts.progress.say(f"{error}; left out{consequence}")

    def _checkpoint(self, trainer: "Trainer", best: "Best") -> None:
        """Write down all that the next epoch depends on."""
        at = replace(self.course, seconds=self._seconds())
        checkpointing.save(self.folder, self.parts.described, trainer, best, at)

    def _seconds(self) -> float:
        """Return the seconds of this run and of those that it went on from."""
        return self.course.seconds + time.perf_counter() - self.began

    def _patience_is_over(self, best: "Best") -> bool:
        """Tell whether no epoch has been better for as long as was asked for."""
        patience, done = self.parts.spec.patience, len(self.course.history)
        if patience is None or best.record is None:
            return False
        over = done - best.record.epoch >= patience
        if over:
            self.parts.progress.say(
                f"stopping early: none of the last {plural(patience, 'epoch')} was "
                f"better than epoch {best.record.epoch}"
            )
        return over

    def _keep_last(self) -> None:
        """Write the weights of the last epoch beside what will be those of the best."""
        if self.course.history and self.parts.ranks.main:
            last = asdict(self.course.history[-1])
            model = replace(self.parts.model(), report={"last_epoch": last})
            save_model(model, self.folder / LAST_FILE)
            self.last_is_kept = True

    def _broken_off(self, best: "Best", why: str) -> str:
        """Save what there is; return what to tell the user."""
        if best.record is None:
            return f"{why} before the first epoch was done; nothing was written"
        self._keep_last()
        best.restore()
        # Not measured on the fixed views: whoever stops does not want to wait.
        self._write(
            {
                "train_accuracy": best.record.train_accuracy,
                "val_accuracy": best.record.val_accuracy,
                "val_loss": best.record.val_loss,
            },
            best_epoch=best.record.epoch,
            interrupted=True,
        )
        done = f"{len(self.course.history)} of {self.parts.spec.epochs}"
        run = shown(self.folder)
        kept = (
            f"{why} after {done} epochs; the best so far, epoch {best.record.epoch}, "
            f"is kept in {run}"
        )
        if checkpointing.open_checkpoint(self.folder) is None:  # stopped while it began
            return kept
        return f"{kept}; go on with 'featcache finetune --resume {run}'"

    def _save(self, best: "Best") -> Trained:
        """Measure the kept weights and write them with their report."""
        train, val, test = map(self._measure, ("train", "val", "test"))
        assert train is not None
        told: dict[str, Any] = {"train_accuracy": train.accuracy}
        for split, found in {"val": val, "test": test}.items():
            told[f"{split}_accuracy"] = None if found is None else found.accuracy
            told[f"{split}_loss"] = None if found is None else found.loss
            told |= {} if found is None else found.told(split)
        epoch = 0 if best.record is None else best.record.epoch
        trained = self._write(told, best_epoch=epoch, interrupted=False)
        if self.parts.ranks.main:
            checkpointing.remove(self.folder)
        return trained

    def _measure(self, split: str) -> Measured | None:
        """Measure the kept weights on a split."""
        with self.parts.reporting(f"measure {split}", split):
            return self._measured(split)

    def _write(
        self, told: Mapping[str, Any], *, best_epoch: int, interrupted: bool
    ) -> Trained:
        """Write model, report and history; the classifier holds the best weights."""
        parts, course = self.parts, self.course
        still = parts.spec.bn == "train" and parts.spec.head_only
        bn = "frozen" if still else parts.spec.bn
        passed = len(course.history) * parts.feed.count("train")
        report = TrainReport(
            model=self.folder / MODEL_FILE,
            solver=f"finetune-{parts.spec.name}",
            epochs=len(course.history),
            best_epoch=best_epoch,
            seconds=round(self._seconds(), 3),
            images_per_second=(
                round(passed / course.train_seconds, 1) if passed else None
            ),
            batch_norm=_BATCH_NORM[bn],
            skipped=len(parts.bad_images),
            history=tuple(course.history),
            **told,
        )
        model = parts.model()
        if parts.ranks.main:
            settings = {**parts.settings(), "interrupted": interrupted}
            report = save_run(
                self.folder, model, report, settings, last=self.last_is_kept
            )
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
        f"epoch {record.epoch:{width}}/{epochs}  lr {record.lr:.3g}  "
        f"train loss {record.train_loss:.3f} acc {record.train_accuracy:.3f}"
    )
    if record.val_loss is not None:
        line += f"  val loss {record.val_loss:.3f} acc {record.val_accuracy:.3f}"
    return f"{line}  {record.seconds:.1f} s"
