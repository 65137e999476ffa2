"""`fit_head`: a linear head from cached features, in about a second."""

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from featcache.core.errors import CacheNotFoundError, TrainingError
from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.metrics import accuracy
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import EpochRecord, TrainReport
from featcache.core.specs import LogRegSpec, SgdSpec, SweepSpec
from featcache.core.text import listed, plural, shown
from featcache.stages.extraction import CACHE_FOLDER
from featcache.stages.fitting import Outcome, Splits, as_outcome, fit_one, fit_sweep
from featcache.stages.outcome import warn_of_leaks
from featcache.stages.runs import run_folder, save_run
from featcache.store.artifacts import Model
from featcache.store.opening import Paths, open_cache
from featcache.store.table import FeatureTable

Spec = SgdSpec | SweepSpec | LogRegSpec


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
    spec: Spec | None = None,
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
    spec : SgdSpec, SweepSpec or LogRegSpec, optional
        Which solver, and its settings; SGD with the classic tutorial's numbers
        without it. With a `SweepSpec` many heads are fitted by SGD and compared.
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
        When there is a single class, a class has no usable training image, there is
        nothing to choose on, or training diverges.
    """
    began = time.perf_counter()
    spec = spec or SgdSpec()
    opened = cache if isinstance(cache, FeatureTable) else open_cache(_file(cache))
    train, val, test = (opened.features(s) for s in ("train", "val", "test"))
    _check_classes(opened, train)
    if isinstance(spec, SweepSpec) and spec.selects_on(has_val=len(val) > 0) == "train":
        _check_holdout(opened, train)
    if opened.skipped:
        progress.say(
            f"{plural(opened.skipped, 'image')} of the cache could not be read and "
            "take no part"
        )
    warn_of_leaks(opened, progress)
    splits = Splits(
        train,
        val if len(val) else None,
        both=lambda: _joined(opened, train, val),
        classes=len(opened.classes),
    )
    outcome = _fit(splits, spec)
    for note in outcome.notes:
        progress.say(note)
    report = _report(outcome, opened, train, test, began)
    settings = {**asdict(spec), **outcome.settings, "cache": shown(opened.path)}
    folder = run_folder(f"fit-head-{opened.name}-{outcome.solver}", out)
    report = save_run(folder, _model(opened, outcome.head), report, settings)
    return Trained(report.model, outcome.head, report)


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


def _fit(splits: Splits, spec: Spec) -> Outcome:
    match spec:
        case SgdSpec():
            return fit_one(splits, spec)
        case SweepSpec():
            return fit_sweep(splits, spec)
        case LogRegSpec():
            from featcache.train.logreg import fit_logreg

            fitted, C = fit_logreg(
                splits.train, splits.val, classes=splits.classes, spec=spec
            )
            outcome = replace(as_outcome(fitted), solver="logreg")
            return replace(outcome, notes=fitted.notes, settings={"chosen_C": C})


def _joined(cache: FeatureTable, train: Features, val: Features) -> Features:
    """Return train and val in the order of the cache."""
    rows = np.sort(np.concatenate([train.sample_index, val.sample_index]))
    return Features(cache.take(rows), cache.labels[rows], rows)


def _check_classes(cache: FeatureTable, train: Features) -> None:
    classes, where = cache.classes, shown(cache.path)
    empty = _classes_with(cache, train, 0)
    if empty:
        raise TrainingError(
            f"{where} has no usable training image of {empty}; "
            "a head needs at least one of every class"
        )
    if len(classes) == 1:
        raise TrainingError(
            f"{where} has a single class, {shown(classes[0])}; there is nothing to "
            "tell apart: extract a folder with two class folders or more"
        )


def _check_holdout(cache: FeatureTable, train: Features) -> None:
    single = _classes_with(cache, train, 1)
    if single:
        raise TrainingError(
            f"{shown(cache.path)} has a single training image of {single}; none can be "
            "held out to choose on: add images, or a val/ to choose on"
        )


def _classes_with(cache: FeatureTable, train: Features, count: int) -> str:
    """Name the classes with so many training images."""
    counts = np.bincount(train.y, minlength=len(cache.classes))
    return listed(shown(cache.classes[c]) for c in np.flatnonzero(counts == count))


def _report(
    outcome: Outcome,
    cache: FeatureTable,
    train: Features,
    test: Features,
    began: float,
) -> TrainReport:
    head = outcome.head
    return TrainReport(
        model=Path(),  # known once it is saved
        solver=outcome.solver,
        epochs=len(outcome.history),
        best_epoch=outcome.best_epoch,
        train_accuracy=accuracy(head.scores(train.X), train.y),
        val_accuracy=outcome.val_accuracy,
        val_loss=outcome.val_loss,
        test_accuracy=accuracy(head.scores(test.X), test.y) if len(test) else None,
        skipped=cache.skipped,
        seconds=round(time.perf_counter() - began, 3),
        history=outcome.history,
        **outcome.told,
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
