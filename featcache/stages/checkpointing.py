"""Checkpoints: a training that was interrupted goes on as if it had not been."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.core.errors import CheckpointError
from featcache.core.reports import EpochRecord
from featcache.core.text import shown
from featcache.stages.recipe import require_same
from featcache.stages.runs import MODEL_FILE
from featcache.store.checkpoints import (
    Checkpoint,
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)

if TYPE_CHECKING:
    from featcache.train.keeping import Best
    from featcache.train.loop import Trainer

_FOLDER = "checkpoint"  # in the run's


@dataclass
class Course:
    """How far a training is: what its next epoch and its report depend on."""

    history: list[EpochRecord] = field(default_factory=list)
    seconds: float = 0.0  # of the runs before this one
    train_seconds: float = 0.0  # in which images were trained on, val left out


def open_checkpoint(run: Path) -> Checkpoint | None:
    """Read the checkpoint of a run.

    Parameters
    ----------
    run : Path
        Its folder.

    Returns
    -------
    Checkpoint or None
        None where there is none: it is finished, or was never begun.

    Raises
    ------
    CheckpointError
        When it is damaged.
    """
    return read_checkpoint(run / _FOLDER)


def request_of(run: Path) -> Mapping[str, Any]:
    """Return what an unfinished run was asked for.

    Parameters
    ----------
    run : Path
        Its folder.

    Returns
    -------
    mapping
        JSON data, as `save` was given it.

    Raises
    ------
    CheckpointError
        When there is nothing to go on with.
    """
    if not run.is_dir():
        raise CheckpointError(
            f"{shown(run)} is no folder; expected that of a run of 'featcache finetune'"
        )
    found = open_checkpoint(run)
    if found is None:
        why = (
            "it is finished, or was stopped while it began"
            if (run / MODEL_FILE).is_file()
            else "it is no run of 'featcache finetune' that has done an epoch"
        )
        raise CheckpointError(f"{shown(run)} holds no checkpoint: {why}")
    request: Mapping[str, Any] = found.about["request"]
    return request


def save(
    run: Path, request: Mapping[str, Any], trainer: "Trainer", best: "Best", at: Course
) -> None:
    """Write all that the next epoch depends on; the checkpoint before goes after it.

    Parameters
    ----------
    run : Path
        The run's folder.
    request : mapping
        JSON data: what was asked for, and under ``recipe`` what it comes to.
    trainer : Trainer
        Model and optimizer.
    best : Best
        The weights to be kept.
    at : Course
        Its epochs are done.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    from featcache.train.keeping import training_arrays

    assert best.record is not None
    arrays = training_arrays(trainer.model, trainer.optimizer)
    if best.record.epoch != at.history[-1].epoch:  # else they are the model's
        arrays |= best.arrays()
    about = {
        "epochs": len(at.history),
        "request": dict(request),
        "history": [asdict(record) for record in at.history],
        "best": asdict(best.record),
        "seconds": at.seconds,
        "train_seconds": at.train_seconds,
        "scaler": trainer.scaler.state_dict(),
    }
    save_checkpoint(run / _FOLDER, arrays, about)


def resume(
    found: Checkpoint, request: Mapping[str, Any], trainer: "Trainer", best: "Best"
) -> Course:
    """Put a training back to where its checkpoint was written.

    Parameters
    ----------
    found : Checkpoint
        From `open_checkpoint`.
    request : mapping
        As for `save`; of this run.
    trainer : Trainer
        Fresh; changed in place.
    best : Best
        Fresh; changed in place.

    Returns
    -------
    Course
        The epochs that are done.

    Raises
    ------
    CheckpointError
        When it is one of another recipe, network, or other images.
    """
    from featcache.train.keeping import resume_training

    about, run = found.about, shown(found.folder.parent)
    require_same(about["request"]["recipe"], request["recipe"], run)
    resume_training(trainer.model, trainer.optimizer, found.tensors)
    trainer.scaler.load_state_dict(about["scaler"])
    record = EpochRecord(**about["best"])
    history = [EpochRecord(**fields) for fields in about["history"]]
    best.resume(found.tensors, record)
    if record.epoch == history[-1].epoch:
        best.take(record)
    return Course(history, about["seconds"], about["train_seconds"])


def remove(run: Path) -> None:
    """Remove the checkpoint of a run that is finished.

    Parameters
    ----------
    run : Path
        Its folder.
    """
    remove_checkpoint(run / _FOLDER)
