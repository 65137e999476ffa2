"""`fit_head`: a head from cached features, in about a second."""

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from featcache.core.displays import Displayed, Told
from featcache.core.features import Features, StoredFeatures
from featcache.core.knn import Head
from featcache.core.manifest import SPLITS
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import EpochRecord, TrainReport
from featcache.core.resources import Resources
from featcache.core.shards import ShardRecord, set_pattern
from featcache.core.specs import LogRegSpec, SgdSpec, SweepSpec
from featcache.core.text import plural, shown
from featcache.stages.fitting import Outcome, Splits, fit_one, fit_sweep
from featcache.stages.newest import newest_cache
from featcache.stages.outcome import warn_of_leaks
from featcache.stages.requirements import require_classes, require_two, take_shots
from featcache.stages.runs import MODEL_FILE, run_folder, save_run
from featcache.stages.solving import SolverSpec, fit_solved
from featcache.stages.together import company
from featcache.stages.viewing import used_views, with_views
from featcache.store.artifacts import Model
from featcache.store.opening import Paths, open_cache
from featcache.store.reader import FeatureCache
from featcache.store.table import FeatureTable

Spec = SgdSpec | SweepSpec | SolverSpec


@dataclass(frozen=True, eq=False)
class Trained(Displayed):
    """A trained model and how it came about.

    Parameters
    ----------
    model : Path
        The model file.
    head : LinearHead or KnnHead
        What the model file holds.
    report : TrainReport
        What it reached; the same fields as ``--json`` prints.
    """

    model: Path
    head: Head
    report: TrainReport

    def _told(self) -> Told:
        return self.report._told()  # noqa: SLF001 - it is the report, and more

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy on ``val`` of the kept weights; None without such a split."""
        return self.report.val_accuracy

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """One record per epoch."""
        return self.report.history


def fit_head(  # noqa: PLR0913 - the command's options
    cache: FeatureTable | Paths | None = None,
    spec: Spec | None = None,
    *,
    shots: int | None = None,
    shots_seed: int = 0,
    views: int | None = None,
    resources: Resources | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Fit a head on cached features.

    Of several processes that torchrun started each reads a part of the features, and
    their gradients are added up. The head is the one that a single process would fit,
    but for rounding.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        Several files are read as one, as `featcache.open_cache` does; the newest file
        in ``cache/`` without it.
    spec : SgdSpec, SweepSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec, optional
        Which solver, and its settings; SGD with the classic tutorial's numbers
        without it. With a `SweepSpec` many heads are fitted by SGD and compared.
    shots : int, optional
        How many training images of each class are drawn; all without it.
    shots_seed : int
        Of that draw.
    views : int, optional
        How many of a cache's views of training images SGD draws from, one each epoch:
        the first ones, all without it. 1 leaves out the random views. val and test
        have view 0, which other solvers use alone.
    resources : Resources, optional
        How much memory SGD may take for features, and the device that it runs on; half
        of what is free, and the CPU, without it.
    out : str or path, optional
        Folder for model, report and history; ``runs/...`` without it.
    progress : Progress
        Hears what to know of the result.

    Returns
    -------
    Trained
        The head (of SGD that of the best epoch on ``val``), and where its files are.

    Raises
    ------
    CacheError
        When the cache is missing or damaged.
    TrainingError
        When there is a single class, a class has no usable training image or fewer
        than ``shots``, there is nothing to choose on, or a solver comes to no result.
    SpecError
        When the cache has fewer views.
    DeviceError
        When the device is not there, or not for several processes.
    PeerError
        When another one of several processes has failed.
    """
    began = time.perf_counter()
    spec, resources = spec or SgdSpec(), resources or Resources()
    sgd = isinstance(spec, SgdSpec | SweepSpec)
    with company(resources, by_epochs=sgd) as others:
        opened = others.opened(lambda: _opened(cache))
        progress = others.progress(progress)
        used = used_views(opened, views, by_epochs=sgd)
        train, val, test = (opened.features(s) for s in SPLITS)
        train = with_views(opened, train, used)
        require_classes(opened, train)
        if shots is not None:
            train = take_shots(opened, train, shots, seed=shots_seed)
        _require_choice(opened, train, val, spec)
        if others.main:
            _tell(opened, val, progress)
        splits = Splits(
            train,
            val if len(val) else None,
            both=lambda: with_views(opened, _joined(opened, train, val), used),
            classes=len(opened.classes),
            resources=others.share(_placed(resources), opened),
        )
        outcome = _fit(splits, spec)
        _say(outcome.notes, progress)
        report = _report(outcome, splits, opened, test)
        told = used if opened.spec.views > 1 else None
        report = replace(report, shots=shots, views=told, seconds=_since(began))
        settings = {
            **asdict(spec),
            **outcome.settings,
            **({} if shots is None else {"shots": shots, "shots_seed": shots_seed}),
            **({} if told is None else {"views": told}),
            "cache": shown(opened.path),
        }
        name = f"fit-head-{opened.name}-{outcome.solver}"
        model = _model(opened, outcome.head)
        folder = others.told(lambda: os.fspath(run_folder(name, out)))
        if others.main:
            report = save_run(Path(folder), model, report, settings)
        report = replace(report, model=Path(folder, MODEL_FILE))
    return Trained(report.model, outcome.head, report)


def _opened(cache: FeatureTable | Paths | None) -> FeatureTable:
    return cache if isinstance(cache, FeatureTable) else open_cache(_file(cache))


def _say(notes: Iterable[str], progress: Progress) -> None:
    for note in notes:
        progress.say(note)


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _file(cache: Paths | None) -> Paths:
    return newest_cache() if cache is None else cache


def _fit(splits: Splits, spec: Spec) -> Outcome:
    match spec:
        case SgdSpec():
            return fit_one(splits, spec)
        case SweepSpec():
            return fit_sweep(splits, spec)
        case _:
            return fit_solved(splits, spec)


def _require_choice(
    cache: FeatureTable, train: Features, val: Features, spec: Spec
) -> None:
    """Refuse classes of one image where settings are chosen on a part of train."""
    match spec:
        case SweepSpec() if spec.selects_on(has_val=len(val) > 0) == "train":
            require_two(cache, train, "add images, or a val/ to choose on")
        case LogRegSpec() if len(set(spec.C)) > 1:
            require_two(
                cache, train, "train on more images, or give one value of C (--C)"
            )


def _tell(cache: FeatureTable, val: Features, progress: Progress) -> None:
    """Say what takes no part, and what will not be known."""
    record = ShardRecord.read(cache.provenance)
    if isinstance(cache, FeatureCache) and record is not None and record.count > 1:
        pattern = set_pattern(cache.path)
        progress.say(
            f"{shown(cache.path)} is {record.shard.words}; the head knows nothing of "
            f"the others" + (f": {shown(pattern)} is all" if pattern else "")
        )
    if cache.skipped:
        progress.say(
            f"{plural(cache.skipped, 'image')} of the cache could not be read and "
            "take no part"
        )
    if not len(val):
        progress.say(
            f"{shown(cache.path)} has no usable image of val: nothing tells how good "
            "the head will be"
        )
    warn_of_leaks(cache, progress)


def _joined(cache: FeatureTable, train: Features, val: Features) -> Features:
    """Return train and val in the order of the cache."""
    rows = np.sort(np.concatenate([train.sample_index, val.sample_index]))
    return StoredFeatures(cache.source, cache.labels[rows], rows)


def _placed(resources: Resources) -> Resources:
    """Return resources with a device that is there."""
    if resources.device == "cpu":
        return resources  # torch need not be loaded
    from featcache.vision.forward import pick_device

    return replace(resources, device=str(pick_device(resources.device)))


def _report(
    outcome: Outcome, splits: Splits, cache: FeatureTable, test: Features
) -> TrainReport:
    """Return what is told of the head; model and seconds are not known yet."""
    head = outcome.head
    on_train = outcome.train_accuracy
    if on_train is None:
        on_train = splits.measure(head, splits.train).accuracy
    told = dict(outcome.told)
    if splits.val is not None:
        judged = outcome.before_refit or head
        measured = outcome.val or splits.measure(judged, splits.val)
        told |= measured.told("val")
    if len(test):
        measured = splits.measure(head, test)
        told |= {"test_accuracy": measured.accuracy, "test_loss": measured.loss}
        told |= measured.told("test")
    return TrainReport(
        model=Path(),
        solver=outcome.solver,
        epochs=len(outcome.history),
        best_epoch=outcome.best_epoch,
        train_accuracy=on_train,
        val_accuracy=outcome.val_accuracy,
        val_loss=outcome.val_loss,
        skipped=cache.skipped,
        seconds=0.0,
        history=outcome.history,
        **told,
    )


def _model(cache: FeatureTable, head: Head) -> Model:
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
