"""The picture of accuracy against training images."""

import warnings
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.core.curves import CurvePoint, CurveReport
from featcache.core.libraries import optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREY = "#0072B2", "#6b6b6b"  # blue of Okabe and Ito, for every kind of eye
_SIZE = (5.2, 3.6)  # inches; a column of a paper takes it at 3.4
_DPI = 200
_DIGIT, _APART = 0.02, 0.02  # of the axis' width: one digit, and between two labels
_LONGEST = 40  # letters of a title


def draw_curve(report: CurveReport) -> "Figure":
    """Draw a learning curve: means, a band of one standard deviation, and chance.

    Parameters
    ----------
    report : CurveReport
        At least one point.

    Returns
    -------
    matplotlib.figure.Figure
        Of its own, no window and no global state; to be saved by the caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    module = optional("matplotlib.figure", "drawing", extra="plot")
    figure: Figure = module.Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    x = [_position(point, report) for point in report.points]
    _draw_means(axes, x, report)
    axes.axhline(
        100 * report.chance,
        color=_GREY,
        linewidth=1,
        linestyle=":",
        label="most frequent class",
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _label(axes, report)
    _mark_counts(axes, x, report)
    return figure


def save_figure(figure: "Figure", path: Path, kind: str) -> None:
    """Write a figure.

    Parameters
    ----------
    figure : Figure
        Drawn.
    path : Path
        The file.
    kind : {"png", "svg"}
        What it becomes; letters of an SVG stay text.
    """
    matplotlib = optional("matplotlib", "drawing", extra="plot")
    # No time of day and no random names: equal curves make equal files.
    metadata = {"Date": None} if kind == "svg" else None
    settings = {"svg.fonttype": "none", "svg.hashsalt": "featcache"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A data set's name may have letters that the font does not.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(path, format=kind, dpi=_DPI, metadata=metadata)


def _position(point: CurvePoint, report: CurveReport) -> float:
    return point.images if report.by_share else point.images_per_class


def _draw_means(axes: "Axes", x: Sequence[float], report: CurveReport) -> None:
    means = [100 * point.accuracy_mean for point in report.points]
    spread = [100 * (point.accuracy_std or 0) for point in report.points]
    low = [mean - s for mean, s in zip(means, spread, strict=True)]
    high = [min(100, mean + s) for mean, s in zip(means, spread, strict=True)]
    if report.seeds > 1:
        label = f"± 1 standard deviation of {report.seeds} draws"
        axes.fill_between(x, low, high, color=_BLUE, alpha=0.2, lw=0, label=label)
    axes.plot(x, means, color=_BLUE, marker="o", markersize=4, label="mean")


def _label(axes: "Axes", report: CurveReport) -> None:
    kind = "in all" if report.by_share else "per class"
    axes.set_xlabel(f"training images {kind}")
    axes.set_ylabel(f"accuracy on {report.val_images:,} val images (%)")
    # A name is a name: "$" begins no formula.
    axes.set_title(
        f"{_shortened(report.data)}\n{report.backbone}, {report.solver}",
        fontsize=9.5,
        parse_math=False,
    )
    top = axes.get_ylim()[1]
    axes.set_ylim(top=100.5 if top > 90 else top)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 2]}...{name[-_LONGEST // 2 :]}"


def _mark_counts(axes: "Axes", x: Sequence[float], report: CurveReport) -> None:
    """Put a tick at each count; leave out labels that would touch."""
    ticker: Any = optional("matplotlib.ticker", "drawing", extra="plot")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    labels, last = [""] * len(x), float("inf")
    for i in reversed(range(len(x))):  # from the right: all images have their label
        place = _along(x[i], low, high)
        number = f"{x[i]:,.0f}"
        half = _DIGIT * max(len(number), 0 if i < len(x) - 1 else len("(all)")) / 2
        if place + half + _APART <= last:
            labels[i], last = (
                f"{number}\n",
                place - half,
            )  # two lines, as the last one's
    labels[-1] += "(all)"
    axes.xaxis.set_major_locator(ticker.FixedLocator(list(x)))
    axes.xaxis.set_major_formatter(ticker.FixedFormatter(labels))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _along(value: float, low: float, high: float) -> float:
    """Return where a value lies on a logarithmic axis, from 0 to 1."""
    return log(value / low) / log(high / low)
