"""`fit_head`: a linear head from cached features, in about a second."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.core.errors import CacheNotFoundError, TrainingError
from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.metrics import accuracy
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import EpochRecord, TrainReport
from featcache.core.specs import LogRegSpec, SgdSpec
from featcache.core.text import listed, plural, shown
from featcache.stages.extraction import CACHE_FOLDER
from featcache.stages.outcome import warn_of_leaks
from featcache.stages.runs import run_folder, save_run
from featcache.store.artifacts import Model
from featcache.store.opening import Paths, open_cache
from featcache.store.table import FeatureTable
from featcache.train.sgd import Fitted


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and how it came about.

    Parameters
    ----------
    model : Path
        The model file.
    head : LinearHead
        The kept weights of the classifier.
    report : TrainReport
        What it reached; the same fields as ``--json`` prints.
    """

    model: Path
    head: LinearHead
    report: TrainReport

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy on ``val`` of the kept weights; None without such a split."""
        return self.report.val_accuracy

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """One record per epoch."""
        return self.report.history


def fit_head(
    cache: FeatureTable | Paths | None = None,
    spec: SgdSpec | LogRegSpec | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Fit a linear head on cached features.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        Several files are read as one, as `featcache.open_cache` does; the newest file
        in ``cache/`` without it.
    spec : SgdSpec or LogRegSpec, optional
        Which solver, and its settings; SGD with the classic tutorial's numbers
        without it.
    out : str or path, optional
        Folder for model, report and history; ``runs/...`` without it.
    progress : Progress
        Hears of every epoch.

    Returns
    -------
    Trained
        The head of the best epoch on ``val``, and where its files are.

    Raises
    ------
    CacheError
        When the cache is missing or damaged.
    TrainingError
        When a class has no usable training image, or training diverges.
    """
    began = time.perf_counter()
    spec = spec or SgdSpec()
    opened = cache if isinstance(cache, FeatureTable) else open_cache(_file(cache))
    train, val, test = (opened.features(s) for s in ("train", "val", "test"))
    _check_classes(opened, train)
    if opened.skipped:
        progress.say(
            f"{plural(opened.skipped, 'image')} of the cache could not be read and "
            "take no part"
        )
    warn_of_leaks(opened, progress)
    fitted, solver, chosen = _fit(train, val if len(val) else None, opened, spec)
    for note in fitted.notes:
        progress.say(note)
    report = _report(fitted, solver, train, test, began)
    settings = {**asdict(spec), **chosen, "cache": shown(opened.path)}
    folder = run_folder(f"fit-head-{opened.name}-{solver}", out)
    report = save_run(folder, _model(opened, fitted.head), report, settings)
    return Trained(report.model, fitted.head, report)


def newest_cache(folder: Path = CACHE_FOLDER) -> Path:
    """Return the cache that was completed last.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    Path
        The newest ``.h5`` file in it.

    Raises
    ------
    CacheNotFoundError
        When there is none.
    """
    files = [p for p in folder.glob("*.h5") if p.is_file()]
    if not files:
        raise CacheNotFoundError(
            f"no cache in {folder}{os.sep}; make one with 'featcache extract', or name "
            "a file"
        )
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def _file(cache: Paths | None) -> Paths:
    return newest_cache() if cache is None else cache


def _fit(
    train: Features,
    val: Features | None,
    cache: FeatureTable,
    spec: SgdSpec | LogRegSpec,
) -> tuple[Fitted, str, dict[str, Any]]:
    classes = len(cache.classes)
    match spec:
        case SgdSpec():
            from featcache.train.sgd import fit_sgd

            return fit_sgd(train, val, classes=classes, spec=spec), "sgd", {}
        case LogRegSpec():
            from featcache.train.logreg import fit_logreg

            fitted, C = fit_logreg(train, val, classes=classes, spec=spec)
            return fitted, "logreg", {"chosen_C": C}


def _check_classes(cache: FeatureTable, train: Features) -> None:
    counts = np.bincount(train.y, minlength=len(cache.classes))
    empty = [shown(cache.classes[c]) for c in np.flatnonzero(counts == 0)]
    if empty:
        raise TrainingError(
            f"{shown(cache.path)} has no usable training image of {listed(empty)}; "
            "a head needs at least one of every class"
        )


def _report(
    fitted: Fitted, solver: str, train: Features, test: Features, began: float
) -> TrainReport:
    best = fitted.history[fitted.best_epoch - 1]
    head = fitted.head
    return TrainReport(
        model=Path(),  # known once it is saved
        solver=solver,
        epochs=len(fitted.history),
        best_epoch=fitted.best_epoch,
        train_accuracy=accuracy(head.scores(train.X), train.y),
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
        test_accuracy=accuracy(head.scores(test.X), test.y) if len(test) else None,
        seconds=round(time.perf_counter() - began, 3),
        history=fitted.history,
    )


def _model(cache: FeatureTable, head: LinearHead) -> Model:
    spec = cache.spec
    return Model(
        head=head,
        classes=cache.classes,
        view=spec.view,
        backbone=spec.backbone,
        weights_sha256=spec.weights_sha256,
        weights=str(cache.provenance.get("weights", {}).get("source", "")),
        state=None,
        report={},
        precision=spec.precision,
    )
