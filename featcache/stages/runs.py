"""Runs: a new folder for each trained model, unless the user names one."""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featcache.core.reports import EpochRecord, TrainReport
from featcache.stages.provenance import describe_run
from featcache.store.artifacts import Model, save_model
from featcache.store.files import replacing, storing

RUNS_FOLDER = Path("runs")
MODEL_FILE = "model.safetensors"  # of the best epoch
LAST_FILE = "last.safetensors"


def run_folder(name: str, out: str | os.PathLike[str] | None) -> Path:
    """Make the folder of a new run.

    Parameters
    ----------
    name : str
        What was done to what.
    out : str or path, optional
        The user's choice; ``runs/NAME-TIME`` without it.

    Returns
    -------
    Path
        An existing folder; without ``out`` a new one.

    Raises
    ------
    StorageError
        When it cannot be made.
    """
    if out is not None:
        folder = Path(out)
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        tail = "" if attempt == 1 else f"-{attempt}"
        folder = RUNS_FOLDER / f"{name}-{stamp}{tail}"
        with storing(folder):
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    raise AssertionError("a thousand runs in one second")


def save_run(
    folder: Path,
    model: Model,
    report: TrainReport,
    settings: Mapping[str, Any],
    *,
    last: bool = False,
) -> TrainReport:
    """Write model, report and history of a run; each file whole or not at all.

    Parameters
    ----------
    folder : Path
        As `run_folder` made it.
    model : Model
        Its report is filled in here.
    report : TrainReport
        What training reached.
    settings : mapping
        JSON data that a person needs to do it again.
    last : bool
        Whether the folder holds the last epoch's model of this run; that of another
        run is removed.

    Returns
    -------
    TrainReport
        With the place of the model.

    Raises
    ------
    StorageError
        When a file cannot be written.
    """
    report = replace(report, model=folder / MODEL_FILE)
    described = {**report.to_json(), "settings": dict(settings)}
    save_model(replace(model, report=described), report.model)
    if not last:
        with storing(folder):
            (folder / LAST_FILE).unlink(missing_ok=True)
    text = json.dumps({**described, "provenance": describe_run("ended")}, indent=2)
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(text + "\n", "utf-8")
    with replacing(folder / "history.csv") as temporary:
        _write_history(temporary, report.history)
    return report


def _write_history(path: Path, history: tuple[EpochRecord, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(EpochRecord)])
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)
