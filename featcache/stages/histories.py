"""Histories: the epochs of a run, as its folder tells of them."""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from featcache.core.errors import ModelError
from featcache.core.histories import RunHistory
from featcache.core.reports import EpochRecord
from featcache.core.text import shown
from featcache.stages.checkpointing import open_checkpoint
from featcache.stages.solving import NAMES

_NAMES = tuple(field.name for field in fields(EpochRecord))
_MAY_LACK = ("val_loss", "val_accuracy")  # where there is no val split
_WITH_EPOCHS = "'featcache fit-head' with the solver sgd, or 'featcache finetune'"


def read_run(run: str | os.PathLike[str]) -> RunHistory:
    """Read the epochs of a run, and which of them was the best.

    Parameters
    ----------
    run : str or path
        Its folder, or a file in it. One that was interrupted is read from its
        checkpoint.

    Returns
    -------
    RunHistory
        Named as the folder.

    Raises
    ------
    ModelError
        When the run has no epochs, or none that can be read.
    CheckpointError
        When it was interrupted, and its checkpoint is damaged.
    """
    folder = Path(run).parent if Path(run).is_file() else Path(run)
    if not folder.is_dir():
        raise ModelError(
            f"{shown(folder)} is no folder; expected that of a run of {_WITH_EPOCHS}"
        )
    name = shown(folder.resolve().name)
    found = open_checkpoint(folder)  # while there is one, other files are older
    if found is not None:
        records = tuple(EpochRecord(**epoch) for epoch in found.about["history"])
        best = found.about["best"]["epoch"]
        return RunHistory(name, records, best, finished=False)
    report = _read_report(folder)
    records = _read_records(folder / "history.csv")
    best = report.get("best_epoch")
    if best not in [record.epoch for record in records]:
        raise ModelError(
            f"{shown(folder)}: report.json says that epoch {best!r} was the best, but "
            f"history.csv has {len(records)} epochs; they are of two runs, train again"
        )
    return RunHistory(name, records, best)


def _read_report(folder: Path) -> Mapping[str, Any]:
    """Return the report of a run that was trained by epochs."""
    for name in ("report.json", "history.csv"):
        if not (folder / name).is_file():
            raise ModelError(
                f"there is no {shown(folder / name)}; expected the folder of a run of "
                f"{_WITH_EPOCHS}"
            )
    file = folder / "report.json"
    try:
        report = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{shown(file)} cannot be read: {error}") from error
    if not isinstance(report, dict):
        raise ModelError(f"{shown(file)} is no report of a run: it holds no object")
    solver = report.get("solver")
    if solver in NAMES.values():
        raise ModelError(
            f"{shown(folder)} was fitted by {solver}, which has no epochs; there is a "
            f"history of {_WITH_EPOCHS}"
        )
    return report


def _read_records(file: Path) -> tuple[EpochRecord, ...]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            records = tuple(_parsed(csv.DictReader(lines)))
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise ModelError(f"{shown(file)} cannot be read: {error}") from error
    if not records:
        raise ModelError(f"{shown(file)} has no epoch; train again")
    return records


def _parsed(lines: Iterable[Mapping[str, str | None]]) -> Iterable[EpochRecord]:
    for at, line in enumerate(lines, 1):
        numbers: dict[str, Any] = {}
        for name in _NAMES:
            text = line.get(name)
            if text is None:
                raise ValueError(f"epoch {at} has no {name}")
            numbers[name] = float(text) if text or name not in _MAY_LACK else None
        yield EpochRecord(**{**numbers, "epoch": int(numbers["epoch"])})
