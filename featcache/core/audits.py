"""What an audit of a cache has to tell; field names are the JSON keys."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featcache.core.intervals import Interval
from featcache.core.reports import Report

KINDS = ("label", "outlier", "leak", "near_duplicate", "duplicate")
"""In the order of a table; ``leak`` repeats copies that cross into train."""


@dataclass(frozen=True)
class Finding:
    """One image that somebody should look at."""

    kind: str  # one of KINDS
    path: str  # in the data folder, as the user would type it
    score: float  # within a kind, a larger one is more certain
    reason: str
    split: str
    label: str
    other: str | None = None  # the image that it is a copy of
    likely: str | None = None  # the class that it seems to be of


@dataclass(frozen=True)
class ClassCount:
    """Usable images of one class."""

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class SplitAccuracy:
    """Accuracy on a split of a head fitted to train, and without leaks."""

    split: str
    images: int
    accuracy: float
    interval: Interval  # 95 %, Wilson's
    leaks: int  # images that stand in train, too, exactly or nearly
    clean_accuracy: float | None  # without them; None where nothing is left
    clean_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class AuditReport(Report):
    """What `audit` found in a cache."""

    cache: Path
    images: int  # usable ones
    skipped: int  # rows without a feature; they take no part
    backbone: str
    near: float  # cosine from which on images are near duplicates
    counts: dict[str, int]  # findings of each kind
    imbalance: float | None  # largest over smallest class of train; None: one is empty
    accuracies: tuple[SplitAccuracy, ...]
    classes: tuple[ClassCount, ...]
    findings: tuple[Finding, ...]  # by kind; the worst of each first
    notes: tuple[str, ...]  # what was not checked, and why
    seconds: float

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of one kind.

        Parameters
        ----------
        kind : str
            One of `KINDS`.

        Returns
        -------
        list of Finding
            The worst first.
        """
        return [finding for finding in self.findings if finding.kind == kind]


def counted(findings: list[Finding]) -> dict[str, int]:
    """Count the findings of each kind.

    Parameters
    ----------
    findings : list of Finding
        All.

    Returns
    -------
    dict of str to int
        Every kind, in the order of `KINDS`.
    """
    found = Counter(finding.kind for finding in findings)
    return {kind: found[kind] for kind in KINDS}
