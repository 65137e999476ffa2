"""`audit`: what is wrong with a data set, as far as its cache can tell."""

import csv
import os
import time
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from featcache.core.audits import (
    KINDS,
    AuditReport,
    ClassCount,
    Finding,
    SplitAccuracy,
)
from featcache.core.errors import SpecError
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.progress import SILENT, Progress
from featcache.core.text import listed, shown
from featcache.stages.audit_checks import (
    LEAST,
    label_findings,
    outlier_findings,
    split_accuracies,
)
from featcache.stages.audit_copies import Copies, copy_findings, find_copies
from featcache.stages.audited import Audited, Found
from featcache.stages.newest import newest_cache
from featcache.store.files import replacing
from featcache.store.opening import Paths, open_cache
from featcache.store.table import FeatureTable

NEAR = 0.92  # cosine; docs/audit.md says what it finds and what it does not
LISTED = 10_000  # findings of a kind in a report; a file of them has all


def audit(
    cache: FeatureTable | Paths | None = None,
    *,
    near: float = NEAR,
    csv: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> AuditReport:
    """Look for copies, leaks, outliers and wrong labels in a cache.

    Nothing is read but the cache; images may be gone. Rows of unusable images are left
    out and counted.

    Parameters
    ----------
    cache : FeatureCache, path, pattern or paths, optional
        The newest file in ``cache/`` without it.
    near : float
        Cosine of two features from which on their images are near duplicates, in
        (0, 1].
    csv : str or path, optional
        A file for all findings, one a line.
    progress : Progress
        Hears how many images have been compared.

    Returns
    -------
    AuditReport
        Findings, counts, and accuracy with and without leaks.

    Raises
    ------
    CacheError
        When the cache is missing or damaged, or holds maps.
    SpecError
        When ``near`` is no such number, or no image is usable.
    StorageError
        When the file of findings cannot be written.
    """
    began = time.perf_counter()
    if not 0 < near <= 1:
        raise SpecError(f"near must be above 0 and at most 1, got {near:g}")
    opened = cache if isinstance(cache, FeatureTable) else open_cache(_file(cache))
    audited = Audited(opened, opened.features())
    if not len(audited.features):
        raise SpecError(f"{shown(opened.path)} has no usable image to look at")
    timed = _Timed(progress)
    copies = find_copies(audited, near, progress)
    timed.done("copies")
    outliers = outlier_findings(audited)
    timed.done("outliers")
    labels, accuracies, notes = _by_heads(audited, copies)
    timed.done("labels and accuracy")
    found = [*labels, outliers, *copy_findings(audited, copies)]
    if csv is not None:
        _write_csv(Path(csv), found)
    classes = _class_counts(audited)
    trained = [count.train for count in classes]
    return AuditReport(
        cache=opened.path,
        images=len(audited.features),
        skipped=opened.skipped,
        backbone=opened.spec.backbone,
        near=near,
        counts={kind: sum(len(f) for f in found if f.kind == kind) for kind in KINDS},
        imbalance=round(max(trained) / min(trained), 3) if min(trained) else None,
        accuracies=tuple(accuracies),
        classes=classes,
        findings=tuple(finding for one in found for finding in one.first(LISTED)),
        notes=(*_crowded(copies, near), *notes, *_left_out(found)),
        seconds=round(time.perf_counter() - began, 3),
    )


def _file(cache: Paths | None) -> Paths:
    return newest_cache() if cache is None else cache


class _Timed:
    """Tells those who ask for more how long each part took."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._began = progress, time.perf_counter()

    def done(self, part: str) -> None:
        now = time.perf_counter()
        self._progress.detail(f"{part}: {now - self._began:.1f} s")
        self._began = now


def _by_heads(
    audited: Audited, copies: Copies
) -> tuple[list[Found], list[SplitAccuracy], list[str]]:
    """Do what takes heads, or say why not."""
    y, trained = audited.features.y, audited.splits == TRAIN
    if len(np.unique(y)) < 2:
        return [], [], ["labels not checked: all usable images are of one class"]
    notes: list[str] = []
    counts = np.bincount(y, minlength=len(audited.cache.classes))
    few = np.flatnonzero((counts > 0) & (counts < LEAST)).tolist()
    if few:
        names = listed(audited.class_name(label) for label in few)
        notes.append(f"labels not checked of classes under {LEAST} images: {names}")
    labels = [label_findings(audited)]
    if trained.all():
        return labels, [], [*notes, "no accuracy: there is no usable image of val"]
    if len(np.unique(y[trained])) < 2:
        return labels, [], [*notes, "no accuracy: train has no two classes"]
    return labels, split_accuracies(audited, copies), notes


def _crowded(copies: Copies, near: float) -> list[str]:
    """Warn where the threshold does not suit the features."""
    share = float((copies.near.partner >= 0).mean())
    note = (
        f"{100 * share:.0f} % of the images have a near duplicate: unless these are "
        f"frames of films, cosines above {near:g} are usual here; raise --near"
    )
    return [note] if share > 0.5 else []


def _left_out(found: list[Found]) -> list[str]:
    """Say of which kinds not all findings are listed."""
    return [
        f"{one.kind}: the first {LISTED:,} of {len(one):,} findings are listed; --csv "
        "writes all"
        for one in found
        if len(one) > LISTED
    ]


def _class_counts(audited: Audited) -> tuple[ClassCount, ...]:
    C = len(audited.cache.classes)
    counts = [
        np.bincount(audited.features.y[audited.splits == split], minlength=C).tolist()
        for split in range(len(SPLITS))
    ]
    return tuple(
        ClassCount(audited.class_name(label), *(count[label] for count in counts))
        for label in range(C)
    )


def _write_csv(path: Path, found: list[Found]) -> None:
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)])
        writer.writeheader()
        for one in found:
            writer.writerows(asdict(finding) for finding in one)
