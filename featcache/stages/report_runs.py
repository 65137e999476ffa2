"""What a report says of one run: its numbers, its mistakes, how it came about."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from featcache.core.errors import CheckpointError, ModelError
from featcache.core.histories import RunHistory
from featcache.core.intervals import Interval, bootstrap_recall, wilson
from featcache.core.manifest import SPLITS
from featcache.core.metrics import confidences, measure
from featcache.core.pages import Cell, Facts, Figure, Guess, RunPart
from featcache.core.text import shown
from featcache.stages.histories import read_run
from featcache.stages.matching import Named
from featcache.stages.report_pictures import Album, even_sample
from featcache.stages.scoring import Scored
from featcache.stages.worth import kind_of

MISTAKES = 500
"""How many mistakes of a run a page lists."""

_RECALL = "mean over the classes: a small class counts as much as a large one."
_TOP5 = "the class is among the five most probable ones."
_LOSS = "0 is best; it punishes mistakes that were sure."
_ECE = "how far confidence lies from accuracy: 0 is best."


def add_mistakes(album: Album, named: Named, scored: Scored, split: str) -> None:
    """Put a run's mistakes into an album, the most confident first.

    Parameters
    ----------
    album : Album
        Of the page.
    named : Named
        The model.
    scored : Scored
        What it says.
    split : {"train", "val", "test"}
        Of which part.
    """
    for row in _mistakes(scored)[:MISTAKES]:
        _add(album, named, scored, row, SPLITS.index(split))


def add_some(
    album: Album, named: Named, scored: Scored, split: str, count: int
) -> None:
    """Put images into an album of which each class has about as many.

    Parameters
    ----------
    album : Album
        Of the page.
    named : Named
        The model.
    scored : Scored
        What it says.
    split : {"train", "val", "test"}
        Of which part.
    count : int
        At most so many.
    """
    for row in even_sample(scored.y, count).tolist():
        _add(album, named, scored, row, SPLITS.index(split))


def run_part(
    letter: str, named: Named, scored: Scored, split: str, album: Album
) -> RunPart:
    """Return what a report says of a run.

    Parameters
    ----------
    letter : str
        What the page calls it.
    named : Named
        The model.
    scored : Scored
        What it says.
    split : {"train", "val", "test"}
        Of which part.
    album : Album
        With all images of the page.

    Returns
    -------
    RunPart
        Its numbers of pictures are the album's.
    """
    labels = [album.classes.index(name) for name in named.model.classes]
    history, why_not = _history(named)
    report = _report(named)
    images = len(scored.y)
    return RunPart(
        letter=letter,
        name=named.name,
        kind=kind_of(named.model),
        source=scored.source,
        split=split,
        images=images,
        skipped=scored.skipped,
        accuracy=float(scored.right.mean()),
        accuracy_interval=wilson(int(scored.right.sum()), images),
        figures=_figures(scored),
        history=history,
        no_history=why_not,
        cells=_cells(scored, labels),
        mistakes=tuple(_listed(album, scored)),
        guesses=_guesses(album, scored, labels),
        facts=_facts(named),
        settings=_flat(named.settings),
        provenance=_flat(report),
    )


def _mistakes(scored: Scored) -> list[int]:
    """Return the rows that are wrong, the most confident first."""
    wrong = np.flatnonzero(~scored.right)
    order = np.argsort(-confidences(scored.scores[wrong]), kind="stable")
    rows: list[int] = wrong[order].tolist()
    return rows


def _add(album: Album, named: Named, scored: Scored, row: int, split: int) -> None:
    name = named.model.classes[int(scored.y[row])]
    album.add(bytes(scored.paths[row]), name, split)


def _listed(album: Album, scored: Scored) -> Iterator[int]:
    for row in _mistakes(scored)[:MISTAKES]:
        number = album.number(bytes(scored.paths[row]))
        assert number is not None
        yield number


def _guesses(album: Album, scored: Scored, labels: list[int]) -> dict[int, Guess]:
    wanted = np.array(album.paths, "S")
    _, rows, numbers = np.intersect1d(scored.paths, wanted, return_indices=True)
    scores = scored.scores[rows]
    said = zip(
        numbers.tolist(),
        scores.argmax(axis=1).tolist(),
        confidences(scores).tolist(),
        strict=True,
    )
    return {number: Guess(labels[label], share) for number, label, share in said}


def _cells(scored: Scored, labels: list[int]) -> tuple[Cell, ...]:
    C = scored.scores.shape[1]
    pairs = scored.y.astype(np.int64) * C + scored.scores.argmax(axis=1)
    found, counts = np.unique(pairs, return_counts=True)
    return tuple(
        Cell(labels[pair // C], labels[pair % C], count)
        for pair, count in zip(found.tolist(), counts.tolist(), strict=True)
    )


def _figures(scored: Scored) -> tuple[Figure, ...]:
    found = measure(scored.scores, scored.y)
    ends = wilson(int(scored.right.sum()), len(scored.y))
    recall = bootstrap_recall(found.confusion)
    figures = [
        Figure("accuracy", _percent(found.accuracy), _ends(ends)),
        Figure(
            "mean per-class recall",
            _percent(found.mean_per_class_recall),
            _ends(recall),
            _RECALL,
        ),
    ]
    if found.top5_accuracy is not None:
        right = round(found.top5_accuracy * len(scored.y))
        ends = wilson(right, len(scored.y))
        value = _percent(found.top5_accuracy)
        figures.append(Figure("top-5 accuracy", value, _ends(ends), _TOP5))
    figures.append(Figure("log loss", f"{found.log_loss:.4f} nats", "", _LOSS))
    figures.append(Figure("calibration error", f"{found.ece:.4f}", "", _ECE))
    return tuple(figures)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _ends(ends: Interval) -> str:
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f} %"


def _history(named: Named) -> tuple[RunHistory | None, str]:
    assert named.file is not None
    try:
        return read_run(named.file), ""
    except (ModelError, CheckpointError) as error:
        return None, f"{error}."


def _facts(named: Named) -> Facts:
    model = named.model
    return (
        ("backbone", model.backbone),
        ("trained as", kind_of(model)),
        ("solver", shown(str(model.report.get("solver") or "unknown"))),
        ("classes", f"{len(model.classes):,}"),
        ("weights", shown(model.weights)),
        ("weights sha256", shown(model.weights_sha256)),
        ("precision", model.precision),
        ("view", f"resize {model.view.resize}, crop {model.view.crop}"),
        ("file", shown(named.file) if named.file else "none"),
    )


def _report(named: Named) -> Mapping[str, Any]:
    """Return the provenance of a run; it stands beside the model, in report.json."""
    assert named.file is not None
    file = named.file.with_name("report.json")
    try:
        found = json.loads(file.read_text("utf-8"))["provenance"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {"report.json": f"{shown(file)} cannot be read"}
    return found if isinstance(found, dict) else {"provenance": found}


def _flat(data: Mapping[str, Any], before: str = "") -> Facts:
    """Return nested JSON data as names with dots, and printable values."""
    facts: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, dict) and value:
            facts += _flat(value, f"{before}{shown(name)}.")
        elif not name.endswith("_ns"):
            facts.append((f"{before}{shown(name)}", _shown_value(value)))
    return tuple(facts)


def _shown_value(value: object) -> str:
    match value:
        case None:
            return "\N{EN DASH}"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_shown_value, value))
        case _:
            return shown(str(value))
