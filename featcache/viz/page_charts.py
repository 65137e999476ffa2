"""Where the lines of a report's curves lie; the templates draw them as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from featcache.core.histories import RunHistory
from featcache.core.reports import EpochRecord

_WIDTH, _HEIGHT = 360, 216  # in units of the drawing
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 12, 26
_MOST_POINTS = 400  # of a line; more are not told apart
_LEAST = 1e-300  # below, steps have no digits left
_MOST_TICKS = 5

Values = Sequence[float | None]
Ticks = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str  # "train", "val" or "lr": also its style
    path: str  # SVG's d
    end: tuple[float, float]  # gets a dot: the line of one epoch has no length


@dataclass(frozen=True)
class Chart:
    """One chart of the epochs of a run."""

    title: str
    lines: tuple[Line, ...]  # none where no value is a number
    x_ticks: Ticks
    y_ticks: Ticks
    best: float  # x of the epoch that was kept
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Scale:
    """From values to places, linear or logarithmic.

    Parameters
    ----------
    low, high : float
        Values at the ends; different ones.
    start, stop : float
        Their places.
    log : bool
        Whether equal steps are equal factors.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        share = (at - low) / (high - low)
        return round(self.start + share * (self.stop - self.start), 1)


def charts(history: RunHistory) -> tuple[Chart, ...]:
    """Return the charts of a training: loss, accuracy and learning rate.

    Parameters
    ----------
    history : RunHistory
        At least one epoch.

    Returns
    -------
    tuple of Chart
        Three.
    """
    records = _thinned(history)
    loss: dict[str, Values] = {
        "train": [record.train_loss for record in records],
        "val": [record.val_loss for record in records],
    }
    accuracy: dict[str, Values] = {
        "train": [_hundred(record.train_accuracy) for record in records],
        "val": [_hundred(record.val_accuracy) for record in records],
    }
    rate: dict[str, Values] = {"lr": [record.lr for record in records]}
    epochs, best = [record.epoch for record in records], history.best_epoch
    return (
        _chart("Loss (nats)", epochs, loss, best),
        _chart("Accuracy (%)", epochs, accuracy, best),
        _chart("Learning rate", epochs, rate, best),
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose an interval.

    Parameters
    ----------
    low, high : float
        Its ends; they may be equal.

    Returns
    -------
    list of float
        Two to six, rising.

    Examples
    --------
    >>> ticks(0.13, 0.37)
    [0.1, 0.2, 0.3, 0.4]
    >>> ticks(1, 1)
    [0.5, 0.75, 1.0, 1.25, 1.5]
    """
    if high - low < _LEAST:
        half = abs(low) / 2 if abs(low) > _LEAST else 0.5
        low, high = low - half, high + half
    rough = (high - low) / (_MOST_TICKS - 1)
    decade = 10 ** math.floor(math.log10(rough))
    step = decade * next(m for m in (1, 2, 2.5, 5, 10) if m * decade >= 0.999 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * at:.12g}") for at in range(first, last + 1)]


def _thinned(history: RunHistory) -> list[EpochRecord]:
    """Return no more epochs than a line can show; the best and the last are kept."""
    records = history.records
    every = math.ceil(len(records) / _MOST_POINTS)
    last = len(records) - 1
    return [
        record
        for at, record in enumerate(records)
        if at % every == 0 or at == last or record.epoch == history.best_epoch
    ]


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _chart(
    title: str, epochs: Sequence[int], series: Mapping[str, Values], best: int
) -> Chart:
    # One epoch alone stands in the middle.
    first, last = epochs[0], epochs[-1]
    alone = first == last
    x = Scale(first - alone, last + alone, _LEFT, _WIDTH - _RIGHT)
    found = [v for values in series.values() for v in values if _finite(v)]
    if not found:
        return Chart(title, (), (), (), x(best))
    log = "lr" in series and min(found) > _LEAST and max(found) / min(found) >= 10
    marks = _decades(found) if log else ticks(min(found), max(found))
    y = Scale(marks[0], marks[-1], _HEIGHT - _BOTTOM, _TOP, log)
    lines = [_line(name, epochs, values, (x, y)) for name, values in series.items()]
    return Chart(
        title,
        tuple(line for line in lines if line),
        tuple((x(t), f"{t:,}") for t in _epoch_ticks(first, last)),
        tuple((y(t), f"{t:g}".replace("e-0", "e-")) for t in marks),
        x(best),
    )


def _line(
    name: str, epochs: Sequence[int], values: Values, scales: tuple[Scale, Scale]
) -> Line | None:
    """Return the line through the values that are numbers."""
    x, y = scales
    points = [
        (x(epoch), y(value))
        for epoch, value in zip(epochs, values, strict=True)
        if _finite(value)
    ]
    if not points:
        return None
    return Line(name, "M" + "L".join(f"{a:g} {b:g}" for a, b in points), points[-1])


def _epoch_ticks(first: int, last: int) -> list[int]:
    if last - first < _MOST_TICKS:
        return list(range(first, last + 1))
    inside = (int(tick) for tick in ticks(first, last) if tick == int(tick))
    return [first, *(tick for tick in inside if first + 1 < tick <= last)]


def _decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around positive values."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = math.ceil(math.log10(max(values)) - 1e-9)
    step = math.ceil((high - low) / _MOST_TICKS)
    return [float(f"1e{at}") for at in range(low, high + step, step)]
