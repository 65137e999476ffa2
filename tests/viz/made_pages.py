"""Pages of plain data, as few or as many images as wanted, with names that attack."""

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.core.audits import KINDS, AuditReport, ClassCount, Finding, SplitAccuracy
from featcache.core.histories import RunHistory
from featcache.core.pages import (
    SHEET,
    AuditPart,
    Cell,
    ComparisonPart,
    Duel,
    Figure,
    Guess,
    MapPart,
    Page,
    Picture,
    RunPart,
)
from featcache.core.reports import EpochRecord
from featcache.core.text import shown

HOSTILE = (
    "<script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "' onmouseover='window.hit = 1' x='",
    "</script><script>window.hit = 1</script>",
    "</style></title><b>hit</b>",
    "javascript:window.hit = 1",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    shown("\u202egpj.exe\u2066 turned"),
    "مرحبا بالعالم",
    "x" * 300,
    shown("two\nlines\ttab\x00"),
    shown(b"caf\xe9"),
    "&lt;b&gt;&amp;",
    "<!--",
    "]]>",
)
"""Names as a page is given them: printable, and whatever else strangers think of."""


def make_page(classes=("ants", "bees"), *, runs=1, images=24, **changes) -> Page:
    """Return a page: image i is of class i modulo C, every fifth a mistake."""
    C = len(classes)
    pictures = tuple(
        Picture(f"val/{classes[i % C]}/{i}.jpg", i % C, "val", i if i % 4 else -1)
        for i in range(images)
    )
    parts = tuple(make_run(chr(65 + at), C, images, classes[0]) for at in range(runs))
    random = np.random.default_rng(0)
    page = Page(
        title=classes[0],
        made="Made 2026-01-01 by featcache.",
        classes=tuple(classes),
        pictures=pictures,
        sheets=tuple(make_sheet(i) for i in range(1 + images // SHEET**2)),
        runs=parts,
        comparison=make_comparison(parts) if runs > 1 else None,
        map=MapPart(
            random.normal(size=(images, 2)).astype(np.float32),
            tuple(range(images)),
            4 * images,
            "tsne",
            classes[0],
        ),
        audit=AuditPart(
            make_audit(classes, pictures), {p.path: i for i, p in enumerate(pictures)}
        ),
    )
    return replace(page, **changes)


def make_sheet(seed: int) -> bytes:
    """Return a small picture; the page does not look at its size."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SHEET * 4, SHEET * 4, 3))
    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "JPEG")
    return data.getvalue()


def make_run(letter: str, C: int, images: int, name: str) -> RunPart:
    """Return a run that takes every fifth image for one of the next class."""
    labels = np.arange(images) % C
    said = np.where(np.arange(images) % 5, labels, (labels + 1) % C)
    pairs, counts = np.unique(labels * C + said, return_counts=True)
    wrong = np.flatnonzero(labels != said).tolist()
    history = RunHistory(
        name,
        tuple(
            EpochRecord(e, 0.1**e, 1 / e, 1 - 0.5 / e, 1.2 / e, 1 - 0.6 / e, 1.0)
            for e in range(1, 9)
        ),
        best_epoch=5,
    )
    return RunPart(
        letter=letter,
        name=name,
        kind="cached head",
        source=name,
        split="val",
        images=images,
        skipped=1,
        accuracy=1 - len(wrong) / images,
        accuracy_interval=(0.5, 0.9),
        figures=(Figure("accuracy", "80.00 %", "50.00 to 90.00 %", name),),
        history=history,
        no_history="",
        cells=tuple(
            Cell(pair // C, pair % C, count)
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        ),
        mistakes=tuple(wrong),
        guesses={i: Guess(int(said[i]), 0.9 - 0.001 * i % 0.4) for i in range(images)},
        facts=(("backbone", "resnet18"), (name, name)),
        settings=(("lr", "0.001"), (name, name)),
        provenance=(("host", name),),
    )


def make_comparison(runs: tuple[RunPart, ...]) -> ComparisonPart:
    """Return a comparison of each run with the one before it."""
    return ComparisonPart(
        images=10,
        unpaired=2,
        rivals=tuple((r.letter, r.name, r.accuracy, (0.5, 0.9)) for r in runs),
        duels=tuple(
            Duel(a.letter, b.letter, -0.01, (-0.2, 0.1), "0.5", f"not clear: {a.name}")
            for a, b in pairwise(runs)
        ),
        worth=f"worth it: {runs[0].name}",
    )


def make_audit(classes, pictures) -> AuditReport:
    """Return an audit with a finding of each kind."""
    findings = tuple(
        Finding(
            kind,
            pictures[0].path,
            0.9,
            classes[-1],
            "val",
            classes[0],
            pictures[1].path,
        )
        for kind in KINDS
    )
    return AuditReport(
        cache=Path("cache.h5"),
        images=len(pictures),
        skipped=0,
        backbone="resnet18",
        near=0.9,
        counts=dict.fromkeys(KINDS, 1),
        imbalance=1.0,
        accuracies=(SplitAccuracy("val", 10, 0.9, (0.5, 0.95), 0, 0.9, (0.5, 0.95)),),
        classes=tuple(ClassCount(name, 3, 2, 0) for name in classes),
        findings=findings,
        notes=(classes[0],),
        seconds=1.0,
    )
