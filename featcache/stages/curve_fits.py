"""The many small fits of a learning curve."""

from dataclasses import replace
from statistics import fmean, stdev

import numpy as np

from featcache.core.curves import CurvePoint
from featcache.core.features import Features
from featcache.core.knn import Head
from featcache.core.progress import Progress
from featcache.core.shots import Level
from featcache.core.specs import LogRegSpec, SgdSpec
from featcache.stages.measuring import measure_head
from featcache.stages.solving import NAMES, SolverSpec, solve

CurveSpec = SgdSpec | SolverSpec

_ROWS = 256  # of an epoch, which costs as much as some steps beside them


def solver_name(spec: CurveSpec) -> str:
    """Return what reports call a solver.

    Parameters
    ----------
    spec : SgdSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        Its settings.

    Returns
    -------
    str
        For example ``'ridge'``.
    """
    match spec:
        case SgdSpec():
            return "sgd"
        case _:
            return NAMES[type(spec)]


def holds_out(spec: CurveSpec) -> bool:
    """Tell whether a solver chooses a setting on a part of train.

    Parameters
    ----------
    spec : SgdSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        Its settings.

    Returns
    -------
    bool
        Then it needs two images of each class.
    """
    return isinstance(spec, LogRegSpec) and len(set(spec.C)) > 1


def as_many_steps(part: Features, spec: SgdSpec, n: int) -> tuple[Features, SgdSpec]:
    """Return few images, and settings with which SGD takes the steps of many.

    In digits with one image of each class, 25 epochs are 75 steps and give 16 %; as
    many steps as with all images give 49 %.

    Parameters
    ----------
    part : Features
        Some of the training images.
    spec : SgdSpec
        Meant for all of them.
    n : int
        How many these are.

    Returns
    -------
    Features, SgdSpec
        Each image several times, up to 256 rows, and more epochs.
    """
    copies = max(1, min(_ROWS, n) // len(part))
    if copies > 1:
        index = np.tile(part.sample_index, copies)
        part = Features(np.tile(part.X, (copies, 1)), np.tile(part.y, copies), index)
    more = n / len(part)
    epochs, step_size = (
        max(1, round(more * number)) for number in (spec.epochs, spec.step_size)
    )
    return part, replace(spec, epochs=epochs, step_size=step_size)


class Fits:
    """The heads of a curve.

    Parameters
    ----------
    train, val : Features
        All of them.
    classes : int
        C.
    spec : SgdSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        Which solver.
    seeds : int
        Heads of each number of images.
    first : int
        Seed of the first draw.
    """

    def __init__(
        self,
        train: Features,
        val: Features,
        classes: int,
        spec: CurveSpec,
        seeds: int,
        first: int,
    ) -> None:
        self.train, self.val, self.classes = train, val, classes
        self.spec, self.seeds, self.first = spec, seeds, first

    def points(
        self, levels: tuple[Level, ...], progress: Progress
    ) -> tuple[CurvePoint, ...]:
        """Fit and measure every head.

        Parameters
        ----------
        levels : tuple of Level
            Numbers of images.
        progress : Progress
            Hears of every head.

        Returns
        -------
        tuple of CurvePoint
            One per level.

        Raises
        ------
        TrainingError
            When a solver comes to no result.
        """
        total = sum(self._repeats(level) for level in levels)
        progress.begin("curve", total, unit="head")
        try:
            return tuple(self._point(level, progress) for level in levels)
        finally:
            progress.end()

    def _repeats(self, level: Level) -> int:
        """Return how many fits differ: of all images only by the solver's seed."""
        seeded = isinstance(self.spec, SgdSpec) or holds_out(self.spec)
        return self.seeds if seeded or not level.whole else 1

    def _point(self, level: Level, progress: Progress) -> CurvePoint:
        """Fit and measure the heads of one number of images."""
        accuracies, images = [], 0
        for number in range(self._repeats(level)):
            part = self.train
            if not level.whole:
                part = part.subset(level.draw(part.y, seed=self.first + number))
            head = self._head(part, number)
            images = len(part)
            measured = measure_head(head, self.val, classes=self.classes)
            accuracies.append(measured.accuracy)
            progress.advance(1)
        return CurvePoint(
            shots=level.shots,
            share=1.0 if level.whole else level.share,
            images=images,
            images_per_class=images / self.classes,
            accuracies=tuple(accuracies),
            accuracy_mean=fmean(accuracies),
            accuracy_std=stdev(accuracies) if len(accuracies) > 1 else None,
        )

    def _head(self, part: Features, number: int) -> Head:
        """Fit one head; the spec's seed moves with the draw's."""
        spec, classes = self.spec, self.classes
        if isinstance(spec, (SgdSpec, LogRegSpec)):
            spec = replace(spec, seed=spec.seed + number)
        match spec:
            case SgdSpec():
                from featcache.train.sgd import fit_sgd

                part, spec = as_many_steps(part, spec, len(self.train))
                return fit_sgd(part, None, classes=classes, spec=spec).head
            case _:
                return solve(part, None, classes=classes, spec=spec).head
