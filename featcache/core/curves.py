"""Accuracy against training images: what `curve` measured."""

from dataclasses import dataclass
from pathlib import Path

from featcache.core.displays import Told, percent
from featcache.core.reports import Report
from featcache.core.text import shown


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Heads fitted on as many images, each time on others."""

    shots: int | None  # training images of each class; None for a share, and for all
    share: float | None  # of each class's training images; None for shots
    images: int  # training images in all
    images_per_class: float  # mean over the classes
    accuracies: tuple[float, ...]  # on val, one per seed
    accuracy_mean: float
    accuracy_std: float | None  # between seeds, with n - 1; None of a single fit


@dataclass(frozen=True, kw_only=True)
class CurveReport(Report):
    """Accuracy on val against the number of training images."""

    out: Path  # folder of what follows
    files: tuple[str, ...]  # in it
    cache: Path
    data: str  # name of the data set
    backbone: str
    solver: str
    classes: int
    val_images: int
    chance: float  # share of the most frequent class on val
    seeds: int
    points: tuple[CurvePoint, ...]  # from few images to all
    skipped: int  # rows of the cache without a feature
    seconds: float

    def _told(self) -> Told:
        yield "cache", self.cache
        yield "solver", self.solver
        yield "val", f"{self.val_images:,} images, {percent(self.chance)} by chance"
        for point in self.points:
            std = point.accuracy_std
            spread = "" if std is None else f" (deviation {100 * std:.2f} points)"
            images = f"{point.images:,} training images"
            yield images, f"{percent(point.accuracy_mean)}{spread}"
        yield "files", f"{shown(self.out)}: {', '.join(self.files)}"

    @property
    def by_share(self) -> bool:
        """Whether shares were asked for, not images of each class."""
        return any(point.share not in (None, 1) for point in self.points)
