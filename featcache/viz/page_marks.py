"""Where the marks of a report's map and large matrices lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.pages import Cell

COLOURS, SHAPES = 8, 6  # of points: together 48 classes are told apart
LEVELS = 5  # shades of a cell

_WIDTH, _HEIGHT, _EDGE = 720, 560, 18
_RADII = ((1000, 4.2), (2000, 3.5), (10**9, 3.0))  # up to so many points
_MOST_CELLS = 20_000  # of a matrix that are drawn
_FITS = 640  # pixels of a large matrix on the screen

# Around a point that the pen is at; areas about equal.
_OUTLINES = (
    "m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z",  # circle
    "m-{s} -{s}h{w}v{w}h-{w}z",  # square
    "m0 -{t}l{u} {v}h-{x}z",  # triangle
    "m0 -{t}l{t} {t}l-{t} {t}l-{t} -{t}z",  # diamond
    "m0 {t}l{u} -{v}h-{x}z",  # triangle, head down
    "m-{b} -{t}h{c}v{a}h{a}v{c}h-{a}v{a}h-{c}v-{a}h-{a}v-{c}h{a}z",  # cross
)


@dataclass(frozen=True)
class Heat:
    """The cells of a matrix that is too large for a table."""

    side: int  # classes
    pixels: int  # width and height on the screen
    levels: tuple[tuple[str, str], ...]  # class of CSS, SVG's d
    cells: int  # drawn
    left_out: int  # smaller ones


@dataclass(frozen=True)
class Scatter:
    """The points of a map."""

    marks: tuple[tuple[str, str], ...]  # class of CSS, SVG's d
    places: tuple[tuple[float, float], ...]
    width: int = _WIDTH
    height: int = _HEIGHT


def shade(cell: Cell, row: int) -> str:
    """Return the class of CSS that colours a cell.

    Parameters
    ----------
    cell : Cell
        Of a confusion matrix.
    row : int
        How many images its class has.

    Returns
    -------
    str
        ``r1`` to ``r5`` on the diagonal, else ``w1`` to ``w5``: by the cell's share
        of the row.
    """
    level = 1 + min(LEVELS - 1, int(LEVELS * cell.count / row))
    return f"{'r' if cell.true == cell.predicted else 'w'}{level}"


def largest(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a matrix that a page has room for.

    Parameters
    ----------
    cells : sequence of Cell
        Those that are not zero.

    Returns
    -------
    list of Cell
        The largest first.
    """
    return sorted(cells, key=lambda cell: -cell.count)[:_MOST_CELLS]


def heat(cells: Sequence[Cell], classes: int) -> Heat:
    """Return the drawing of a large matrix.

    Parameters
    ----------
    cells : sequence of Cell
        Those that are not zero.
    classes : int
        C.

    Returns
    -------
    Heat
        One path for each shade; of very many cells the largest.
    """
    rows = np.bincount(
        [cell.true for cell in cells], [cell.count for cell in cells], classes
    )
    drawn = largest(cells)
    paths: dict[str, list[str]] = {}
    for cell in drawn:
        level = shade(cell, int(rows[cell.true]))
        paths.setdefault(level, []).append(f"M{cell.predicted} {cell.true}h1v1h-1z")
    return Heat(
        side=classes,
        pixels=classes * max(1, _FITS // classes),
        levels=tuple((level, "".join(paths[level])) for level in sorted(paths)),
        cells=len(drawn),
        left_out=len(cells) - len(drawn),
    )


def look(label: int) -> str:
    """Return the class of CSS that colours the points of a class.

    Parameters
    ----------
    label : int
        The class.

    Returns
    -------
    str
        ``k0`` to ``k7``.
    """
    return f"k{label % COLOURS}"


def outline(label: int, radius: float) -> str:
    """Return the shape of the points of a class, around where the pen is.

    Parameters
    ----------
    label : int
        The class; 48 in a row differ in colour or in shape.
    radius : float
        Of the circle that is as large.

    Returns
    -------
    str
        The end of SVG's d.
    """
    shape = (label + 3 * (label // COLOURS)) % SHAPES  # so that 48 differ
    sides = {
        "r": 1, "d": 2, "s": 0.89, "w": 1.78, "t": 1.28, "u": 1.35, "v": 2.25,
        "x": 2.7, "a": 0.84, "b": 0.43, "c": 0.86,
    }  # fmt: skip
    return _OUTLINES[shape].format(
        **{name: f"{side * radius:.3g}" for name, side in sides.items()}
    )


def scatter(points: npt.NDArray[np.float32], labels: Iterable[int]) -> Scatter:
    """Return the drawing of a map, both axes to one scale.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 2)
        n at least 1.
    labels : iterable of int
        Class of each.

    Returns
    -------
    Scatter
        In the order of the points.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE])
    scale = float((room / np.maximum(high - low, 1e-12)).min())
    middle = np.array([_WIDTH, _HEIGHT]) / 2
    centred = (points - (low + high) / 2) * scale
    placed = (middle + centred * [1, -1]).round(1)
    places = tuple((float(x), float(y)) for x, y in placed.tolist())
    radius = next(radius for most, radius in _RADII if len(points) <= most)
    marks = tuple(
        (look(label), f"M{x:g} {y:g}{outline(label, radius)}")
        for (x, y), label in zip(places, labels, strict=True)
    )
    return Scatter(marks, places)
