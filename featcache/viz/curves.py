"""The picture of accuracy against training images."""

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

from featcache.core.curves import CurvePoint, CurveReport
from featcache.core.libraries import optional
from featcache.core.progress import SILENT
from featcache.viz.fonts import Say
from featcache.viz.style import BLUE, GREY, drawing, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from featcache.viz.picture import Picture

_SIZE = (5.2, 3.6)  # inches; a column of a paper takes it at 3.4
_DIGIT, _APART = 0.02, 0.02  # of the axis' width: one digit, and between two labels
_TITLE, _ROOM = 9.5, 290  # points: its letters, and how long its lines may be


def draw_curve(report: CurveReport, say: Say = SILENT.say) -> "Picture":
    """Draw a learning curve: means, a band of one standard deviation, and chance.

    Parameters
    ----------
    report : CurveReport
        At least one point.
    say : callable
        Told once of letters that no installed font has.

    Returns
    -------
    Picture
        Of its own, no window and no global state; to be saved by the caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    with drawing((report.data,), say, size=_SIZE) as picture:
        axes = picture.subplots()
        x = [_position(point, report) for point in report.points]
        _draw_means(axes, x, report)
        axes.axhline(
            100 * report.chance,
            color=GREY,
            linewidth=1,
            linestyle=":",
            label="most frequent class",
        )
        picture.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
        _label(axes, report, picture.families)
        _mark_counts(axes, x, report)
    return picture


def _position(point: CurvePoint, report: CurveReport) -> float:
    return point.images if report.by_share else point.images_per_class


def _draw_means(axes: "Axes", x: Sequence[float], report: CurveReport) -> None:
    means = [100 * point.accuracy_mean for point in report.points]
    spread = [100 * (point.accuracy_std or 0) for point in report.points]
    low = [mean - s for mean, s in zip(means, spread, strict=True)]
    high = [min(100, mean + s) for mean, s in zip(means, spread, strict=True)]
    if report.seeds > 1:
        label = f"± 1 standard deviation of {report.seeds} draws"
        axes.fill_between(x, low, high, color=BLUE, alpha=0.2, lw=0, label=label)
    axes.plot(x, means, color=BLUE, marker="o", markersize=4, label="mean")


def _label(axes: "Axes", report: CurveReport, families: Sequence[str]) -> None:
    kind = "in all" if report.by_share else "per class"
    axes.set_xlabel(f"training images {kind}")
    axes.set_ylabel(f"accuracy on {report.val_images:,} val images (%)")
    data = shortened(report.data, _ROOM, _TITLE, families)
    axes.set_title(f"{data}\n{report.backbone}, {report.solver}", fontsize=_TITLE)
    top = axes.get_ylim()[1]
    axes.set_ylim(top=100.5 if top > 90 else top)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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
