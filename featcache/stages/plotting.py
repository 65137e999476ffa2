"""Plots of what is known already: how runs went, and what a model takes for what."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.histories import RunHistory
from featcache.core.progress import SILENT, Progress
from featcache.core.text import plural, shown
from featcache.stages.evaluation import EvaluationReport
from featcache.stages.histories import read_run

if TYPE_CHECKING:
    from featcache.viz.picture import Picture

Place = str | os.PathLike[str]


def plot_history(
    runs: Place | Iterable[Place], *, progress: Progress = SILENT
) -> "Picture":
    """Draw how trainings went: loss, accuracy and learning rate of each epoch.

    Parameters
    ----------
    runs : str, path, or iterable of them
        Folders of runs, or files in them; several are drawn over each other. One that
        was interrupted is drawn as far as it came.
    progress : Progress
        Hears of letters that no font has.

    Returns
    -------
    Picture
        A matplotlib figure; shows itself in a notebook, ``savefig`` writes it.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    ModelError
        When a run has no epochs, or none that can be read.
    SpecError
        When there is no run.
    """
    from featcache.viz.histories import draw_history

    places = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    found = _told_apart(places, [read_run(place) for place in places])
    return draw_history(found, progress.say)


def _told_apart(
    places: Sequence[Place], found: Sequence[RunHistory]
) -> list[RunHistory]:
    """Return runs named by their paths where their folders are called alike."""
    counts = Counter(run.name for run in found)
    return [
        replace(run, name=shown(Path(place))) if counts[run.name] > 1 else run
        for place, run in zip(places, found, strict=True)
    ]


def plot_confusion(
    report: EvaluationReport, *, progress: Progress = SILENT
) -> "Picture":
    """Draw which classes a model takes for which.

    Parameters
    ----------
    report : EvaluationReport
        From `featcache.evaluate`.
    progress : Progress
        Hears of letters that no font has.

    Returns
    -------
    Picture
        A matplotlib figure; shows itself in a notebook, ``savefig`` writes it.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    from featcache.viz.confusion import draw_confusion

    title = (
        f"{100 * report.accuracy:.1f} % of {plural(report.images, 'image')} of "
        f"{report.split} right"
    )
    return draw_confusion(report.confusion, report.classes, progress.say, title=title)
