"""`curve`: accuracy on val against training images, over several draws."""

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.core.curves import CurveReport
from featcache.core.errors import DependencyError, SpecError, TrainingError
from featcache.core.progress import SILENT, Progress
from featcache.core.shots import Counts, Level, doubling
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.core.text import shown
from featcache.stages.curve_fits import CurveSpec, Fits, holds_out, solver_name
from featcache.stages.newest import newest_cache
from featcache.stages.provenance import describe_run
from featcache.stages.requirements import require_classes, require_shots
from featcache.stages.runs import run_folder
from featcache.store.files import replacing
from featcache.store.opening import Paths, open_cache
from featcache.store.table import FeatureTable

_CSV = ("shots", "share", "images", "seed", "accuracy")
_FORMATS = ("png", "svg")


def curve(  # noqa: PLR0913 - the command's options
    cache: FeatureTable | Paths | None = None,
    spec: CurveSpec | None = None,
    *,
    shots: Iterable[int] | None = None,
    shares: Iterable[float] | None = None,
    seeds: int = 5,
    shots_seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> CurveReport:
    """Measure what further training images bring.

    For each number of images heads are fitted on as many, once for every seed, which
    draws other images, and measured on ``val``. Val has no other part: SGD keeps the
    weights of its last epoch. All training images are the last point.

    SGD takes as many steps with few images as with all: it passes over them more
    often, and its learning rate drops after as many steps. Else the curve would tell
    of the number of steps.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        The newest file in ``cache/`` without it.
    spec : SgdSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec, optional
        Which solver, and its settings; SGD without it.
    shots : iterable of int, optional
        Training images of each class; 1, 2, 4, 8, ... without it.
    shares : iterable of float, optional
        Instead of these, shares of the training images of each class, in (0, 1].
    seeds : int
        How often images are drawn.
    shots_seed : int
        Of the first draw; the next ones follow. Heads get the spec's seed, and the
        next ones, likewise.
    out : str or path, optional
        Folder for table and picture; ``runs/...`` without it.
    progress : Progress
        Hears of every fit, and where there can be no picture.

    Returns
    -------
    CurveReport
        Every accuracy, mean and deviation, and the files written.

    Raises
    ------
    CacheError
        When the cache is missing or damaged.
    SpecError
        When a number is not possible.
    TrainingError
        When there is no val, a class has fewer images than asked for, or a solver
        comes to no result.
    """
    began = time.perf_counter()
    spec = spec or SgdSpec()
    if isinstance(spec, SweepSpec):
        raise SpecError("curve fits one head for each number of images; give SgdSpec")
    opened = cache if isinstance(cache, FeatureTable) else open_cache(_file(cache))
    train, val = opened.features("train"), opened.features("val")
    require_classes(opened, train)
    if not len(val):
        raise TrainingError(
            f"{shown(opened.path)} has no usable image of val to measure on; extract a "
            "folder with val/"
        )
    counts = np.bincount(train.y, minlength=len(opened.classes))
    levels = _levels(shots, shares, counts, spec)
    _require(opened, counts, levels, spec)
    if seeds < 1:
        raise SpecError(f"seeds must be at least 1, got {seeds}")
    fits = Fits(train, val, len(opened.classes), spec, seeds, shots_seed)
    report = CurveReport(
        out=Path(),
        files=(),
        cache=opened.path,
        data=_data_name(opened),
        backbone=_backbone_name(opened),
        solver=solver_name(spec),
        classes=len(opened.classes),
        val_images=len(val),
        chance=max(Counter(val.y.tolist()).values()) / len(val),
        seeds=seeds,
        points=fits.points(levels, progress),
        skipped=opened.skipped,
        seconds=0.0,
    )
    settings = {**asdict(spec), "shots_seed": shots_seed}
    folder = run_folder(f"curve-{opened.name}-{report.solver}", out)
    return _write(replace(report, out=folder), settings, began, progress)


def _file(cache: Paths | None) -> Paths:
    return newest_cache() if cache is None else cache


def _data_name(cache: FeatureTable) -> str:
    folder = cache.provenance.get("data")
    return shown(Path(folder).name if isinstance(folder, str) else cache.name)


def _backbone_name(cache: FeatureTable) -> str:
    """Return the backbone, and random weights where it has such: nobody expects it."""
    source = str(cache.provenance.get("weights", {}).get("source", ""))
    backbone = cache.spec.backbone
    return f"{backbone}, {source}" if source.startswith("random:") else backbone


def _levels(
    shots: Iterable[int] | None,
    shares: Iterable[float] | None,
    counts: Counts,
    spec: CurveSpec,
) -> tuple[Level, ...]:
    """Return what was asked for in rising order, and all images at the end."""
    if shots is not None and shares is not None:
        raise SpecError("shots and shares exclude each other; give one of them")
    if shares is not None:
        parts = sorted(set(shares))
        if not all(0 < share <= 1 for share in parts):
            raise SpecError(f"shares must be above 0 and at most 1, got {parts}")
        return (*(Level(share=s) for s in parts if s < 1), Level())
    if shots is None:
        return doubling(counts, 2 if holds_out(spec) else 1)
    numbers = sorted(set(shots))
    if numbers and numbers[0] < 1:
        raise SpecError(f"shots must be at least 1, got {numbers[0]}")
    return (*(Level(shots=n) for n in numbers if (counts != n).any()), Level())


def _require(
    cache: FeatureTable,
    counts: Counts,
    levels: tuple[Level, ...],
    spec: CurveSpec,
) -> None:
    for level in levels:
        if level.shots is not None:
            require_shots(cache, counts, level.shots)
    if holds_out(spec) and levels[0].least(counts) < 2:
        raise TrainingError(
            "logreg holds out a part of train to choose C, which takes 2 images of "
            "each class; begin with more images, or give one value of C (--C)"
        )


def _write(
    report: CurveReport, settings: dict[str, Any], began: float, progress: Progress
) -> CurveReport:
    """Write table, picture and report of a curve; each file whole or not at all."""
    folder = report.out
    with replacing(folder / "curve.csv") as temporary:
        _write_csv(temporary, report)
    files = ("curve.csv", *_draw(report, progress), "report.json")
    seconds = round(time.perf_counter() - began, 3)
    report = replace(report, files=files, seconds=seconds)
    described = {**report.to_json(), "settings": settings}
    text = json.dumps({**described, "provenance": describe_run("ended")}, indent=2)
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(text + "\n", "utf-8")
    return report


def _write_csv(path: Path, report: CurveReport) -> None:
    """Write one line per head."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _CSV)
        writer.writeheader()
        for point in report.points:
            for seed, accuracy in enumerate(point.accuracies):
                row = (point.shots, point.share, point.images, seed, accuracy)
                writer.writerow(dict(zip(_CSV, row, strict=True)))


def _draw(report: CurveReport, progress: Progress) -> tuple[str, ...]:
    """Write the picture where matplotlib is there; else say how to have it."""
    from featcache.viz.curves import draw_curve
    from featcache.viz.style import save_figure

    try:
        figure = draw_curve(report, progress.say)
    except DependencyError as error:
        progress.say(f"no picture: {error}")
        return ()
    names = tuple(f"curve.{kind}" for kind in _FORMATS)
    for name, kind in zip(names, _FORMATS, strict=True):
        with replacing(report.out / name) as temporary:
            save_figure(figure, temporary, kind)
    return names
