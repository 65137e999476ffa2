"""The picture of a confusion matrix, of 2 classes as of 1,000."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featcache.core.errors import SpecError
from featcache.core.libraries import optional
from featcache.core.text import plural
from featcache.viz.style import drawing, shortened, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from featcache.viz.fonts import Say
    from featcache.viz.picture import Picture

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

_NUMBERED, _NAMED = 40, 60  # classes up to which cells have numbers, and rows names
_CELL, _SIDE = 36.0, (130.0, 500.0)  # points: of a cell of few classes; of the matrix
_LABEL, _LINE = 110.0, 8.0  # points: room for a name, and from one name to the next
_POINTS, _SMALLEST = 8.0, 4.5  # of letters
_AXIS, _BAR, _HEAD = 30.0, 62.0, 22.0  # points: room for these
_TITLE = 260.0  # points: of a title that makes a small picture wider
_PAIRS, _STEP = 32, 14.0  # lines of the list beside a matrix; points between two
_COLUMNS = (30.0, 38.0, 145.0, 245.0)  # points: where that list's begin, and its end
_NOTHING = 115.0  # points: room for the words that nothing is confused
_NONE = "#d4d4d4"  # rows of classes that have no image
_TICKS = (0, 1, 5, 20, 50, 100)  # per cent


class Pair(NamedTuple):
    """Images of one class that were taken for another."""

    true: int
    predicted: int
    images: int


def draw_confusion(
    confusion: Sequence[Sequence[int]] | Counts,
    classes: Sequence[str],
    say: "Say",
    *,
    title: str = "",
) -> "Picture":
    """Draw a confusion matrix: colours are shares of the true class's images.

    Up to 40 classes have their counts in the cells; beyond, the most confused pairs
    are listed beside the matrix, and beyond 60 not every class is named.

    Parameters
    ----------
    confusion : sequence of sequence of int, shape (C, C)
        ``confusion[t][p]`` images of class t were predicted as p.
    classes : sequence of str
        C names in label order.
    say : callable
        Told of letters that no font has.
    title : str
        One line.

    Returns
    -------
    Picture
        To be saved by the caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    SpecError
        When the matrix is none of these classes.
    """
    counts: Counts = np.asarray(confusion, np.int64)
    C = len(classes)
    if not C or counts.shape != (C, C):
        raise SpecError(
            f"a confusion matrix of {plural(C, 'class')} has {C} rows and columns, "
            f"got shape {counts.shape}"
        )
    side = float(np.clip(_CELL * C, *_SIDE))
    points = _number_points(counts, side)
    numbered = C <= _NUMBERED and points >= _SMALLEST
    with drawing([*classes, title], say, size=(1, 1)) as picture:
        axes = picture.subplots()
        axes.set_anchor("N")
        image = _draw_cells(axes, counts)
        _draw_bar(axes, image)
        left, below = _name_classes(axes, classes, side, picture)
        width, height = left + _AXIS + side + _BAR, side + below + _AXIS
        if numbered:
            _write_counts(axes, counts, points, image)
        else:
            pairs = most_confused(counts, _PAIRS)
            _list_pairs(axes, pairs, classes, picture)
            width += _COLUMNS[-1] if pairs else _NOTHING
        line = shortened(title, max(_TITLE, width), _POINTS + 1, picture.families)
        width = max(width, text_width(line, _POINTS + 1, picture.families) + 10)
        picture.suptitle(line, fontsize=_POINTS + 1)
        picture.set_size_inches(width / 72, (height + _HEAD * bool(title)) / 72)
    return picture


def most_confused(confusion: Counts, most: int) -> list[Pair]:
    """Return the pairs of classes with most images taken for each other's.

    Parameters
    ----------
    confusion : ndarray of int64, shape (C, C)
        Rows are true.
    most : int
        How many at most.

    Returns
    -------
    list of Pair
        Those with most images first; true and predicted differ.
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [Pair(t, p, int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def _shares(counts: Counts) -> Shares:
    """Return the share of each cell in its row (C, C); NaN where there is no image."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, totals, out=shares, where=totals > 0)
    return shares


def _draw_cells(axes: "Axes", counts: Counts) -> "AxesImage":
    matplotlib: Any = optional("matplotlib", "drawing", extra="plot")
    colors: Any = optional("matplotlib.colors", "drawing", extra="plot")
    C = len(counts)
    image = axes.imshow(
        100 * np.ma.masked_invalid(_shares(counts)),
        cmap=matplotlib.colormaps["Blues"].with_extremes(bad=_NONE),
        # By the root: mistakes, what the picture is for, are small shares.
        norm=colors.PowerNorm(0.5, vmin=0, vmax=100),
        interpolation="nearest",
    )
    if C <= _NAMED:
        lines = np.arange(C - 1) + 0.5
        axes.hlines(lines, -0.5, C - 0.5, color="white", linewidth=0.6)
        axes.vlines(lines, -0.5, C - 0.5, color="white", linewidth=0.6)
    empty = int((counts.sum(axis=1) == 0).sum())
    note = f"   (grey rows: {plural(empty, 'class')} without images)"
    below = "predicted" + note * bool(empty and C > _NUMBERED)
    axes.set_xlabel(below, fontsize=_POINTS)
    axes.set_ylabel("true", fontsize=_POINTS)
    return image


def _draw_bar(axes: "Axes", image: "AxesImage") -> None:
    """Draw the scale of colours, as high as the matrix."""
    bar = axes.figure.colorbar(
        image, cax=axes.inset_axes((1.02, 0, 0.03, 1)), ticks=_TICKS
    )
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=_POINTS - 1)
    bar.set_label("share of the true class (%)", fontsize=_POINTS)


def _name_classes(
    axes: "Axes", classes: Sequence[str], side: float, picture: "Picture"
) -> tuple[float, float]:
    """Name rows and columns, so many that names do not touch.

    Returns what room they take beside and below, points.
    """
    C, families = len(classes), picture.families
    cell = side / C
    points = min(_POINTS, max(6.0, 0.8 * cell))
    step = 1 if C <= _NAMED else ceil(_LINE / cell)
    at = list(range(0, C, step))
    names = [shortened(classes[c], _LABEL, points, families) for c in at]
    widest = max(text_width(name, points, families) for name in names)
    across = widest < 0.9 * cell
    axes.set_yticks(at, names, fontsize=points)
    axes.set_xticks(at, names, fontsize=points, rotation=0 if across else 90)
    axes.tick_params(length=0 if step == 1 else 2, pad=2)
    return widest, 2 * points if across else widest


def _number_points(counts: Counts, side: float) -> float:
    """Return how large the numbers can be in their cells."""
    digits = max(2, len(str(int(counts.max(initial=0)))))
    cell = side / len(counts)
    return min(_POINTS + 1, 0.6 * cell, 0.9 * cell / (0.64 * digits))


def _write_counts(
    axes: "Axes", counts: Counts, points: float, image: "AxesImage"
) -> None:
    centred: Any = {"ha": "center", "va": "center", "fontsize": points}
    rows = zip(counts.tolist(), _shares(counts), strict=True)
    for t, (row, shares) in enumerate(rows):
        if not any(row):
            at = (len(counts) - 1) / 2
            axes.text(at, t, "no images", color="#333333", style="italic", **centred)
            continue
        light = _luminance(image.to_rgba(100 * shares))
        for p, count in enumerate(row):
            if count:
                # Where contrast with black and white is the same, as WCAG has it.
                colour = "black" if light[p] > 0.179 else "white"
                axes.text(p, t, f"{count}", color=colour, **centred)


def _luminance(colours: npt.NDArray[Any]) -> Shares:
    """Return the relative luminance (n,) of colours (n, 4), as WCAG has it."""
    rgb = colours[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance: Shares = linear @ (0.2126, 0.7152, 0.0722)
    return luminance


def _list_pairs(
    axes: "Axes", pairs: Sequence[Pair], classes: Sequence[str], picture: "Picture"
) -> None:
    """List beside the matrix who is taken for whom, a column for each name."""
    title = "most confused" if pairs else "no image confused"
    look: Any = {"xy": (1, 1), "xycoords": "axes fraction", "va": "top"}
    look |= {"textcoords": "offset points", "fontsize": _POINTS - 1}
    begin = _BAR
    axes.annotate(title, xytext=(begin + 5, 0), weight="bold", **look)
    head = [("images", "true", "predicted")] if pairs else []
    lines = [
        (f"{pair.images:,}", classes[pair.true], classes[pair.predicted])
        for pair in pairs
    ]
    room = _COLUMNS[2] - _COLUMNS[1] - 8
    for number, line in enumerate([*head, *lines], 1):
        for text, x, side in zip(
            line, _COLUMNS, ("right", "left", "left"), strict=False
        ):
            short = shortened(text, room, _POINTS - 1, picture.families)
            at = (begin + x, -_STEP * number)
            style = "normal" if number > 1 else "italic"
            axes.annotate(short, xytext=at, ha=side, style=style, **look)
