"""What a report says in whole sentences."""

from featcache.core.audits import AuditReport, SplitAccuracy
from featcache.core.pages import ComparisonPart, MapPart, Page, RunPart
from featcache.core.text import plural

KINDS = {
    "label": ("likely wrong labels", "likely wrong label"),
    "outlier": ("outliers", "outlier"),
    "leak": ("images of train that stand in val or test, too", "leak"),
    "near_duplicate": ("near duplicates", "near duplicate"),
    "duplicate": ("exact duplicates", "exact duplicate"),
}
"""Titles of an audit's findings, and what one of them is called."""

MAPS = {
    "tsne": "t-SNE keeps neighbours together: images that lie close together look "
    "alike to the network. Distances between groups, and their sizes, mean nothing.",
    "pca": "The first two principal components: the directions in which the images "
    "differ most to the network. Far is far.",
}
"""What the place of a point means."""


def percent(share: float) -> str:
    """Return a share as per cent.

    Parameters
    ----------
    share : float
        In [0, 1].

    Returns
    -------
    str
        With one digit behind the point; what only rounds to all or to nothing is
        said to be more or less than that.

    Examples
    --------
    >>> percent(0.9542), percent(1), percent(0.9999)
    ('95.4 %', '100.0 %', '> 99.9 %')
    """
    if 0 < 1 - share < 0.0005:
        return "> 99.9 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def between(ends: tuple[float, float]) -> str:
    """Return an interval in words.

    Parameters
    ----------
    ends : (float, float)
        In [0, 1].

    Returns
    -------
    str
        For example ``'90.9 to 97.8 %'``.
    """
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points.

    Parameters
    ----------
    difference : float
        In [-1, 1].

    Returns
    -------
    str
        With its sign, and a minus that is as wide as a plus.
    """
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def about_run(run: RunPart) -> str:
    """Say how good a run is.

    Parameters
    ----------
    run : RunPart
        What was measured.

    Returns
    -------
    str
        One sentence.
    """
    right = run.images - run.wrong
    return (
        f"{right:,} of {plural(run.images, 'image')} of {run.split} are recognised: "
        f"{percent(run.accuracy)} (95 % interval {between(run.accuracy_interval)})."
    )


def about_confusion(run: RunPart, classes: tuple[str, ...]) -> list[str]:
    """Say what is taken for what most often, in parts of which some are names.

    Parameters
    ----------
    run : RunPart
        What was measured.
    classes : tuple of str
        Names.

    Returns
    -------
    list of str
        Words, class, words, class, words; words alone where nothing is confused.
    """
    confused = run.confused
    if not confused:
        return ["No image is taken for one of another class."]
    worst = confused[0]
    row = sum(cell.count for cell in run.cells if cell.true == worst.true)
    return [
        "The most frequent mistake: ",
        classes[worst.true],
        " taken for ",
        classes[worst.predicted],
        f", {worst.count:,} of {plural(row, 'image')}.",
    ]


def about_training(run: RunPart) -> str:
    """Say which epoch was kept.

    Parameters
    ----------
    run : RunPart
        Its history.

    Returns
    -------
    str
        A sentence or two; why there is no history where there is none.
    """
    if run.history is None:
        return run.no_history
    kept, last = run.history.best_epoch, run.history.records[-1].epoch
    text = f"The weights of epoch {kept:,} of {last:,} were kept"
    best = next(r for r in run.history.records if r.epoch == kept)
    if best.val_accuracy is not None:
        text += f", with {percent(best.val_accuracy)} on val"
    if not run.history.finished:
        text += ". The training was interrupted and may go on"
    return f"{text}."


def about_mistakes(page: Page, run: RunPart) -> str:
    """Say how many mistakes there are, and how many of them are shown.

    Parameters
    ----------
    page : Page
        Its pictures.
    run : RunPart
        Its mistakes.

    Returns
    -------
    str
        A sentence or two.
    """
    if not run.wrong:
        return f"None: every image of {run.split} is recognised."
    text = f"{plural(run.wrong, 'mistake')}, the most confident first."
    shown = len(run.mistakes)
    if shown < run.wrong:
        text += f" {shown:,} of them are listed here."
    drawn = sum(page.pictures[at].tile >= 0 for at in run.mistakes)
    if drawn < shown:
        text += f" {drawn:,} are drawn."
    return text


def about_map(part: MapPart) -> str:
    """Say how many images a map shows.

    Parameters
    ----------
    part : MapPart
        The map.

    Returns
    -------
    str
        One sentence.
    """
    shown = len(part.pictures)
    if shown == part.images:
        return f"All {plural(shown, 'image')} of {part.source}."
    return (
        f"{shown:,} of {part.images:,} images of {part.source}: mistakes and the "
        "audit's findings first, and an even sample of each class."
    )


def about_audit(report: AuditReport) -> str:
    """Say what an audit found.

    Parameters
    ----------
    report : AuditReport
        Its counts.

    Returns
    -------
    str
        One sentence.
    """
    found = [
        plural(count, KINDS[kind][1]) for kind, count in report.counts.items() if count
    ]
    if not found:
        return f"Nothing to look at in {plural(report.images, 'image')}."
    *first, last = found
    listing = f"{', '.join(first)} and {last}" if first else last
    return (
        f"{listing} in {plural(report.images, 'image')}: to be looked at, not verdicts."
    )


def about_leaks(accuracy: SplitAccuracy) -> str:
    """Say what leaks do to the accuracy on a split.

    Parameters
    ----------
    accuracy : SplitAccuracy
        Of a head fitted to train.

    Returns
    -------
    str
        One sentence.
    """
    text = (
        f"A ridge head fitted to train has {percent(accuracy.accuracy)} of "
        f"{accuracy.split} right"
    )
    if not accuracy.leaks:
        return f"{text}; no image of it stands in train."
    text += f", and without {plural(accuracy.leaks, 'image')} that stand in train "
    if accuracy.clean_accuracy is None:
        return f"{text}nothing is left."
    return f"{text}{percent(accuracy.clean_accuracy)}."


def verdict(part: ComparisonPart) -> str:
    """Say in a sentence which run is the best.

    Parameters
    ----------
    part : ComparisonPart
        Of two runs or more.

    Returns
    -------
    str
        Of two runs the verdict of their test.
    """
    if len(part.duels) == 1:
        text = part.duels[0].verdict
        return f"{text[:1].upper()}{text[1:]}."
    letter, _, accuracy, _ = max(part.rivals, key=lambda rival: rival[2])
    return f"{letter} has the highest accuracy: {percent(accuracy)}."


def about_comparison(part: ComparisonPart) -> str:
    """Say what a comparison has shown.

    Parameters
    ----------
    part : ComparisonPart
        Of two runs or more.

    Returns
    -------
    str
        A sentence or two.
    """
    text = f"All runs on the same {plural(part.images, 'image')}."
    if part.unpaired:
        text += (
            f" {plural(part.unpaired, 'image')} that only some of them were given "
            "left out."
        )
    return text


def about_drawn(page: Page) -> str:
    """Say how many images have a picture.

    Parameters
    ----------
    page : Page
        Its pictures.

    Returns
    -------
    str
        A sentence or two.
    """
    images = max([run.images for run in page.runs] + [_map_images(page)])
    text = (
        f"{page.drawn:,} of {images:,} images drawn, as small squares of their middle."
    )
    gone = sum(bool(picture.note) for picture in page.pictures)
    if gone:
        say = "its place says" if gone == 1 else "their places say"
        text += f" {plural(gone, 'image')} could not be; {say} why."
    return text


def _map_images(page: Page) -> int:
    return page.map.images if isinstance(page.map, MapPart) else 0
