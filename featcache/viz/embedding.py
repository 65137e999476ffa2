"""The map of a cache: a point for each image, coloured by its class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featcache.core.errors import SpecError
from featcache.core.features import Rows
from featcache.core.heads import Floats
from featcache.core.libraries import optional
from featcache.core.metrics import Labels
from featcache.core.seeds import generator
from featcache.core.text import plural
from featcache.viz.style import (
    class_styles,
    colour_note,
    drawing,
    shortened,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from featcache.viz.fonts import Say
    from featcache.viz.picture import Picture

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, bottom, right, top; points

_SIDE, _BESIDE = 5.0, 1.9  # inches: of the map; of a legend
_LOWEST = 4.2  # inches of height: 20 classes have their line in the legend
_POINTS, _NAME = 8.0, 95.0  # of letters; points that a name may be wide
_LETTERS = 30  # of a line of the note on colours
_LISTED = 20  # classes up to which the legend has their names
_RASTER = 2_000  # points from which on an SVG holds them as pixels
_FAINT, _INK = 0.45, "#000000"
_LINE = 9.5  # points from one name to the next above it
_RADII = (0.0, 1.0, 2.0, 3.0)  # lines that a name may lie off its class


@dataclass(frozen=True, eq=False)
class MapMarks:
    """What a map says of its points besides their class.

    Parameters
    ----------
    held_out : ndarray of bool, shape (n,), optional
        Images of val and test; drawn strong, the others faint.
    wrong : ndarray of bool, shape (n,), optional
        Images that a model takes for another class.
    axes : tuple of str
        What the two axes are.
    title : str
        One line.
    held_out_name : str
        What held-out points are called in the legend.
    wrong_name : str
        What wrong points are called in the legend.
    """

    held_out: Mask | None = None
    wrong: Mask | None = None
    axes: tuple[str, str] = ("", "")
    title: str = ""
    held_out_name: str = "val and test"
    wrong_name: str = "mistake"

    def told_apart(self) -> Mask | None:
        """Return ``held_out`` where there are both kinds of points, else None."""
        held_out = self.held_out
        if held_out is None or held_out.all() or not held_out.any():
            return None
        return held_out


def draw_map(
    points: Floats,
    labels: Labels,
    classes: Sequence[str],
    say: "Say",
    marks: MapMarks | None = None,
) -> "Picture":
    """Draw points of the plane in the colours of their classes.

    Up to 20 classes are named beside the map; beyond, at the medians of their points,
    as far as there is room.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 2)
        See `featcache.train.projection`.
    labels : ndarray of int32, shape (n,)
        In [0, C).
    classes : sequence of str
        C names in label order; those without a point are left out.
    say : callable
        Told of letters that no font has.
    marks : MapMarks, optional
        What else is known of the points.

    Returns
    -------
    Picture
        Both axes to one scale; to be saved by the caller.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    SpecError
        When there is no point.
    """
    marks = marks or MapMarks()
    if not len(points):
        raise SpecError("there is no point to draw; choose another split")
    present = np.unique(labels)
    names = [classes[c] for c in present.tolist()]
    y: Rows = np.searchsorted(present, labels).astype(np.int64)
    listed = len(names) <= _LISTED
    size = (_SIDE + _BESIDE, _height(points) + 0.3)
    with drawing([*names, marks.title, marks.wrong_name], say, size=size) as picture:
        axes = picture.subplots()
        _draw_points(axes, points, y, len(names), marks)
        _dress(axes, marks, picture)
        _add_legend(picture, names if listed else [], len(names), marks)
        if not listed:
            _name_groups(axes, points, y, names, picture)
    return picture


def _height(points: Floats) -> float:
    """Return inches as high as the points are, within what a legend needs."""
    width, height = np.ptp(points, axis=0)
    return _SIDE if height >= width else max(_LOWEST, _SIDE * float(height / width))


def _draw_points(
    axes: "Axes", points: Floats, y: Rows, classes: int, marks: MapMarks
) -> None:
    n = len(points)
    styles = class_styles(classes)
    colours = np.array([style.colour for style in styles])
    shapes = np.array([style.marker for style in styles])
    told_apart = marks.told_apart()
    strong = np.ones(n, bool) if told_apart is None else told_apart
    # In random order within each layer: else the last class would hide the others.
    order = generator(0, "drawing").permutation(n)
    size = float(np.clip(14_000 / n, 4, 26))
    for layer, alpha in ((~strong, _FAINT), (strong, 0.9)):
        for shape in dict.fromkeys(shapes.tolist()):
            rows = order[(layer & (shapes[y] == shape))[order]]
            if not len(rows):
                continue
            axes.scatter(
                points[rows, 0],
                points[rows, 1],
                s=size,
                c=colours[y[rows]],
                marker=shape,
                alpha=alpha,
                linewidths=0,
                rasterized=n > _RASTER,
            )
    if marks.wrong is not None:
        x, z = points[marks.wrong].T
        size = max(30.0, 2.2 * size)
        axes.scatter(x, z, s=size, fc="none", ec=_INK, linewidths=0.8)
        axes.scatter(x, z, s=12, c=_INK, marker="x", linewidths=0.8)


def _dress(axes: "Axes", marks: MapMarks, picture: "Picture") -> None:
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])  # the numbers mean nothing
    axes.set_yticks([])
    axes.set_xlabel(marks.axes[0], fontsize=_POINTS)
    axes.set_ylabel(marks.axes[1], fontsize=_POINTS)
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
    room = 72 * _SIDE
    line = shortened(marks.title, room, _POINTS + 1, picture.families)
    axes.set_title(line, fontsize=_POINTS + 1)


def _add_legend(
    picture: "Picture", names: Sequence[str], classes: int, marks: MapMarks
) -> None:
    lines: Any = optional("matplotlib.lines", "drawing", extra="plot")

    def key(label: str, **look: Any) -> Any:  # noqa: ANN401 - matplotlib's
        return lines.Line2D([], [], **{"linestyle": "", "label": label, **look})

    def short(name: str) -> str:
        return shortened(name, _NAME, _POINTS, picture.families)

    handles = [
        key(short(name), color=style.colour, marker=style.marker, markersize=6)
        for name, style in zip(names, class_styles(classes), strict=False)
    ]
    grey: Any = {"color": "#444444", "marker": "o", "markersize": 6}
    if marks.told_apart() is not None:
        faint = key("train", alpha=_FAINT, markeredgewidth=0, **grey)
        handles += [faint, key(marks.held_out_name, **grey)]
    if marks.wrong is not None:
        look: Any = {"color": _INK, "marker": _ringed_cross(), "markersize": 7}
        look["markerfacecolor"] = "none"
        handles.append(key(short(marks.wrong_name), **look))
    note = "" if names else "\n".join(wrap(colour_note(classes), _LETTERS))
    if handles or note:
        picture.legend(
            handles=handles,
            title=note or None,
            loc="outside right upper",
            fontsize=_POINTS,
            title_fontsize=_POINTS - 1,
            frameon=False,
            alignment="left",
        )


def _ringed_cross() -> Any:  # noqa: ANN401 - matplotlib's Path
    """Return the mark of a mistake: a ring with a cross in it."""
    paths: Any = optional("matplotlib.path", "drawing", extra="plot")
    circle = paths.Path.unit_circle()
    cross = paths.Path(
        np.array([(-0.6, -0.6), (0.6, 0.6), (-0.6, 0.6), (0.6, -0.6)]),
        [1, 2, 1, 2],  # move, line, move, line
    )
    return paths.Path.make_compound_path(circle, cross)


def _name_groups(
    axes: "Axes",
    points: Floats,
    y: Rows,
    names: Sequence[str],
    picture: "Picture",
) -> None:
    """Write names at the medians of their points, or near, so that none overlap."""
    note = picture.supxlabel(" ", fontsize=_POINTS - 1)  # takes its room now
    picture.draw_without_rendering()  # now it is known where points lie
    scale = 72 / picture.dpi
    left, bottom, right, top = axes.bbox.extents
    edges = scale * left, scale * bottom, scale * right, scale * top
    taken: list[Box] = []
    counts = np.bincount(y, minlength=len(names))
    small = _POINTS - 1.5
    for c in np.argsort(-counts, kind="stable").tolist():
        x, z = np.median(points[y == c], axis=0).tolist()
        x0, y0 = scale * axes.transData.transform((x, z))
        name = shortened(names[c], _NAME, small, picture.families)
        half = text_width(name, small, picture.families) / 2 + 1.5
        for dx, dy in _offsets(half):
            box = _box(x0 + dx, y0 + dy, half)
            if _inside(box, edges) and _free(box, taken):
                taken.append(box)
                _write_name(axes, name, (x, z), (dx, dy), small)
                break
    missing = len(names) - len(taken)
    if missing:
        note.set_text(f"no room for the names of {plural(missing, 'class')}")


def _offsets(half: float) -> Iterator[tuple[float, float]]:
    """Yield the places to try for a name, nearest first, points."""
    yield 0.0, 0.0
    for radius in _RADII[1:]:
        for turn in range(8):
            angle = turn * np.pi / 4
            yield (
                float((half + _LINE * (radius - 1)) * np.cos(angle)),
                float(radius * _LINE * np.sin(angle)),
            )


def _box(x: float, y: float, half: float) -> Box:
    return x - half, y - _LINE / 2, x + half, y + _LINE / 2


def _inside(box: Box, edges: Box) -> bool:
    low = edges[0] < box[0] and edges[1] < box[1]
    return low and box[2] < edges[2] and box[3] < edges[3]


def _free(box: Box, taken: Sequence[Box]) -> bool:
    return not any(
        box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3]
        for b in taken
    )


def _write_name(
    axes: "Axes",
    name: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    points: float,
) -> None:
    moved = offset != (0.0, 0.0)
    axes.annotate(
        name,
        at,
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=points,
        bbox={"boxstyle": "square,pad=0.08", "fc": "white", "ec": "none", "alpha": 0.7},
        arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#555555"}
        if moved
        else None,
    )
