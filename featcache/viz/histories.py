"""The picture of a training: loss, accuracy and learning rate against the epoch."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from featcache.core.errors import SpecError
from featcache.core.histories import RunHistory
from featcache.core.libraries import optional
from featcache.core.reports import EpochRecord
from featcache.viz.style import COLOURS, class_styles, drawing, shortened, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from featcache.viz.fonts import Say
    from featcache.viz.picture import Picture

_WIDTH, _HEIGHT, _ENTRY = 5.2, 5.0, 0.2  # inches; the last of a line of the legend
_POINTS = 8.0  # of letters
_ROOM, _KEY = 350.0, 45.0  # points; of a line, and what a legend puts before a name
_MOST = 24  # runs named in the legend
_DOTS = 40  # epochs up to which each is marked
_DECADES = 2.0  # powers of ten from which on a loss needs a logarithmic axis
_GREY = "#555555"

Value = Callable[[EpochRecord], float | None]


def draw_history(runs: Sequence[RunHistory], say: "Say") -> "Picture":
    """Draw how one training went, or several over each other.

    Parameters
    ----------
    runs : sequence of RunHistory
        At least one. Values that are None are left out.
    say : callable
        Told of letters that no font has.

    Returns
    -------
    Picture
        Val drawn through, train dashed, the best epoch ringed; to be saved by the
        caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    SpecError
        When there is no run.
    """
    if not runs:
        raise SpecError("there is no run to draw; name the folder of one")
    size = (_WIDTH, _HEIGHT)
    with drawing([run.name for run in runs], say, size=size) as picture:
        axes = picture.subplots(3, sharex=True, height_ratios=(3, 3, 1.6))
        for run, (train, val) in zip(runs, _colours(len(runs)), strict=True):
            _draw_run(axes, run, train, val)
        _label(axes, runs)
        picture.align_ylabels(axes)
        _explain_lines(picture, runs)
        if len(runs) == 1:
            title = _called(runs[0], _POINTS + 1, picture)
            picture.suptitle(title, fontsize=_POINTS + 1)
        else:
            _name_runs(picture, runs)
    return picture


def _colours(runs: int) -> list[tuple[str, str]]:
    """Return the colours of train and val: of several runs each has one."""
    if runs == 1:
        return [(COLOURS[1], COLOURS[0])]
    # Lines tell train and val apart, so that runs have but their colours.
    styles = class_styles(runs if runs <= len(COLOURS) else max(runs, 25))
    return [(style.colour, style.colour) for style in styles[:runs]]


def _draw_run(axes: Sequence["Axes"], run: RunHistory, train: str, val: str) -> None:
    loss, accuracy, rate = axes
    _draw_line(loss, run, lambda epoch: epoch.train_loss, train, "--")
    _draw_line(loss, run, lambda epoch: epoch.val_loss, val, "-")
    _draw_line(accuracy, run, lambda epoch: 100 * epoch.train_accuracy, train, "--")
    _draw_line(accuracy, run, _val_percent, val, "-")
    epochs = [epoch.epoch for epoch in run.records]
    color = _GREY if train != val else val
    rates = [epoch.lr for epoch in run.records]
    rate.step(epochs, rates, where="mid", color=color, linewidth=1.3)
    if len(run.records) <= _DOTS:
        rate.plot(epochs, rates, ".", color=color, markersize=3)
    _mark_best(axes, run, train, val)


def _val_percent(epoch: EpochRecord) -> float | None:
    return None if epoch.val_accuracy is None else 100 * epoch.val_accuracy


def _draw_line(
    axes: "Axes", run: RunHistory, value: Value, colour: str, line: str
) -> None:
    known = [(e.epoch, v) for e in run.records if (v := value(e)) is not None]
    if not known:
        return
    dots = "." if len(run.records) <= _DOTS else ""
    axes.plot(
        *zip(*known, strict=True),
        color=colour,
        linestyle=line,
        linewidth=1.3,
        marker=dots,
        markersize=3.5,
    )


def _mark_best(axes: Sequence["Axes"], run: RunHistory, train: str, val: str) -> None:
    """Ring the epoch whose weights are kept: on val, or on train without it."""
    best = next(epoch for epoch in run.records if epoch.epoch == run.best_epoch)
    on_train = best.val_accuracy is None
    values: Any = (
        best.train_loss if best.val_loss is None else best.val_loss,
        100 * best.train_accuracy if on_train else _val_percent(best),
    )
    color = train if on_train else val
    for panel, value in zip(axes, values, strict=False):
        panel.plot(
            best.epoch,
            value,
            "o",
            markersize=7,
            markerfacecolor="none",
            markeredgecolor=color,
            markeredgewidth=1.4,
            clip_on=False,  # whole at 100 %, too
        )


def _label(axes: Sequence["Axes"], runs: Sequence[RunHistory]) -> None:
    ticker: Any = optional("matplotlib.ticker", "drawing", extra="plot")
    records = [epoch for run in runs for epoch in run.records]
    losses = [v for e in records for v in (e.train_loss, e.val_loss) if v is not None]
    _log_where_wide(axes[0], losses, _DECADES)
    _log_where_wide(axes[2], [epoch.lr for epoch in records], 1.0)
    for panel, name in zip(
        axes, ("loss (nats)", "accuracy (%)", "learning rate"), strict=True
    ):
        panel.set_ylabel(name, fontsize=_POINTS)
        panel.tick_params(labelsize=_POINTS - 0.5)
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(low, min(high, 101.5))
    axes[2].set_xlabel("epoch", fontsize=_POINTS)
    locator = ticker.MaxNLocator(
        "auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]
    )
    axes[2].xaxis.set_major_locator(locator)
    if len({epoch.epoch for epoch in records}) == 1:
        axes[2].set_xlim(records[0].epoch - 0.5, records[0].epoch + 0.5)


def _log_where_wide(axes: "Axes", values: Iterable[float], decades: float) -> None:
    """Make an axis logarithmic where values are positive and spread that far."""
    values = [value for value in values if isfinite(value)]
    if values and min(values) > 0 and max(values) >= 10**decades * min(values):
        axes.set_yscale("log")
        ticker: Any = optional("matplotlib.ticker", "drawing", extra="plot")
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _explain_lines(picture: "Picture", runs: Sequence[RunHistory]) -> None:
    """Say what is train and what is val: below one run, above the names of several."""
    lines: Any = optional("matplotlib.lines", "drawing", extra="plot")
    train, val = _colours(1)[0] if len(runs) == 1 else (_GREY, _GREY)
    with_val = any(e.val_accuracy is not None for run in runs for e in run.records)
    best = "best epoch" if len(runs) > 1 else f"best epoch: {runs[0].best_epoch}"
    key = lines.Line2D([], [], color=val if with_val else train, linestyle="")
    key.set(marker="o", markersize=7, markerfacecolor="none", label=best)
    handles = [lines.Line2D([], [], color=train, linestyle="--", label="train"), key]
    if with_val:
        handles.insert(1, lines.Line2D([], [], color=val, label="val"))
    side = "lower" if len(runs) == 1 else "upper"
    _add_legend(picture, handles, f"outside {side} center", ncols=3)


def _name_runs(picture: "Picture", runs: Sequence[RunHistory]) -> None:
    lines: Any = optional("matplotlib.lines", "drawing", extra="plot")
    names = [_called(run, _POINTS, picture) for run in runs[:_MOST]]
    handles = [
        lines.Line2D([], [], color=colour, label=name)
        for name, (_, colour) in zip(names, _colours(len(runs)), strict=False)
    ]
    if len(runs) > _MOST:
        rest = f"and {len(runs) - _MOST} more"
        handles.append(lines.Line2D([], [], linestyle="", label=rest))
    widest = max(text_width(name, _POINTS, picture.families) for name in names)
    columns = max(1, int(_ROOM // (widest + _KEY)))
    picture.set_figheight(_HEIGHT + _ENTRY * ceil(len(handles) / columns))
    _add_legend(picture, handles, "outside lower center", ncols=columns)


def _add_legend(picture: "Picture", handles: list[Any], place: Any, ncols: int) -> None:  # noqa: ANN401
    look: Any = {"ncols": ncols, "fontsize": _POINTS, "frameon": False}
    picture.legend(handles=handles, loc=place, **look)


def _called(run: RunHistory, points: float, picture: "Picture") -> str:
    tail = "" if run.finished else " (unfinished)"
    room = _ROOM - _KEY - text_width(tail, points)
    return shortened(run.name, room, points, picture.families) + tail
