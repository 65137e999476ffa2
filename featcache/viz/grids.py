"""Grids: pictures of images side by side, with what is said of each."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from featcache.core.progress import SILENT
from featcache.core.tiles import Tile
from featcache.viz.fonts import Say
from featcache.viz.style import GREY, RIGHT, WRONG, drawing, shortened, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from featcache.viz.picture import Picture

# Points, 1/72 inch. The axes of a grid are a sheet of paper measured in them.
_GAP, _BLOCK_GAP, _MARGIN = 5.0, 18.0, 12.0
_TEXT, _HEADING, _TITLE = 7.5, 9.0, 11.0
_LINE = 1.35  # height of a line over the size of its letters
_LEAST_HEADING = 150.0
_LEAST_WIDTH = 360.0  # few small tiles must not leave a title without room
_MARKS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}", None: ""}
_INKS = {True: RIGHT, False: WRONG, None: "black"}


@dataclass(frozen=True)
class Cell:
    """One image and what is said of it.

    Parameters
    ----------
    tile : Tile
        Its picture.
    label : str
        A class name, drawn below.
    value : str
        Drawn at the end of the same line, such as a probability.
    truth : str
        What it is really, on a line of its own.
    right : bool, optional
        Whether the label is the truth: a colour and a mark; None where nobody knows.
    """

    tile: Tile
    label: str = ""
    value: str = ""
    truth: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Section:
    """Images under one heading.

    Parameters
    ----------
    cells : sequence of Cell
        In order.
    heading : str
        Such as their class.
    note : str
        Behind the heading, such as how many there are.
    """

    cells: Sequence[Cell]
    heading: str = ""
    note: str = ""


class _Sheet(NamedTuple):
    """Where things are, points from the upper left corner."""

    side: float  # of a tile
    across: int  # tiles to a line
    blocks: int  # sections beside one another
    caption: float  # height of the lines below a tile
    head: float  # height of a heading

    @property
    def block(self) -> float:
        tiles = self.across * (self.side + _GAP) - _GAP
        return max(tiles, _LEAST_HEADING) if self.head else tiles

    @property
    def width(self) -> float:
        gaps = (self.blocks - 1) * _BLOCK_GAP
        return max(_LEAST_WIDTH, self.blocks * self.block + gaps + 2 * _MARGIN)

    def height(self, section: Section) -> float:
        lines = max(1, ceil(len(section.cells) / self.across))
        return self.head + lines * (self.side + self.caption + _GAP)


def draw_grid(
    sections: Sequence[Section],
    *,
    title: str,
    notes: Sequence[str] = (),
    across: int = 6,
    side: float = 92.0,
    say: Say = SILENT.say,
) -> "Picture":
    """Draw images in a grid.

    Parameters
    ----------
    sections : sequence of Section
        At least one; beside one another where there are many.
    title : str
        Above all; shortened if it is too long.
    notes : sequence of str
        Lines below the title.
    across : int
        Images to a line of a section, at most.
    side : float
        Of the square that an image is fitted into, points.
    say : callable
        Told once of letters that no installed font has.

    Returns
    -------
    Picture
        To be saved, or shown by a notebook.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    sheet = _sheet(sections, across, side)
    rows = [
        sections[i : i + sheet.blocks] for i in range(0, len(sections), sheet.blocks)
    ]
    heights = [max(map(sheet.height, row)) for row in rows]
    wrapped = [line for note in notes for line in _wrapped(note, sheet.width - 24)]
    top = _MARGIN + _LINE * (_TITLE + _TEXT * len(wrapped)) + _GAP
    height = top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    size = sheet.width / 72, height / 72
    with drawing(_names(sections, title), say, size=size) as picture:
        pen = _Pen(_paper(picture, sheet.width, height), picture.families)
        pen.write(title, _MARGIN, _MARGIN, sheet.width - 2 * _MARGIN, points=_TITLE)
        for number, line in enumerate(wrapped):
            y = _MARGIN + _LINE * (_TITLE + number * _TEXT)
            pen.write(line, _MARGIN, y, sheet.width, colour=GREY)
        for row, row_height in zip(rows, heights, strict=True):
            for number, section in enumerate(row):
                x = _MARGIN + number * (sheet.block + _BLOCK_GAP)
                _draw_section(pen, sheet, section, x, top)
            top += row_height + _GAP
    return picture


def _sheet(sections: Sequence[Section], across: int, side: float) -> _Sheet:
    longest = max(len(section.cells) for section in sections)
    across = max(1, min(across, longest))
    # As wide as it is high, about.
    lines = sum(max(1, ceil(len(s.cells) / across)) for s in sections)
    blocks = min(len(sections), ceil((lines / across) ** 0.5))
    cells = [cell for section in sections for cell in section.cells]
    lines_below = max((bool(c.label) + bool(c.truth) for c in cells), default=0)
    headed = any(section.heading for section in sections)
    return _Sheet(
        side,
        across,
        blocks,
        lines_below * _LINE * _TEXT + (2 if lines_below else 0),
        _LINE * _HEADING + 2 if headed else 0.0,
    )


def _names(sections: Sequence[Section], title: str) -> Iterator[str]:
    yield title
    for section in sections:
        yield section.heading
        for cell in section.cells:
            yield from (cell.label, cell.truth)


def _paper(picture: "Picture", width: float, height: float) -> "Axes":
    """Return axes over the whole picture whose unit is a point, from the top left."""
    picture.set_layout_engine("none")
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return axes


class _Pen(NamedTuple):
    """What draws on paper."""

    axes: "Axes"
    families: Sequence[str]

    def write(  # noqa: PLR0913 - what, where and how
        self,
        text: str,
        x: float,
        y: float,
        width: float,
        *,
        points: float = _TEXT,
        colour: str = "black",
        align: Literal["left", "right"] = "left",
    ) -> float:
        """Write a line that fits, its top at y; return how wide it became."""
        line = shortened(text, width, points, self.families)
        # The baseline is where it is for every script, so that lines stay on a line.
        self.axes.text(x, y + points, line, size=points, color=colour, ha=align)
        return text_width(line, points, self.families)

    def show(self, tile: Tile, x: float, y: float, side: float) -> None:
        """Fit a picture into a square, in its own shape."""
        if tile.pixels is None:
            self._box(x, y, side, side, facecolor="#eeeeee")
            wrapped = _wrapped(tile.note, side - 8)[:7]
            fit = (shortened(w, side - 8, _TEXT, self.families) for w in wrapped)
            lines = "\n".join(fit)
            middle: Any = {"ha": "center", "va": "center", "size": _TEXT}
            self.axes.text(x + side / 2, y + side / 2, lines, color=GREY, **middle)
            return
        height, width = tile.pixels.shape[:2]
        w, h = side * width / max(width, height), side * height / max(width, height)
        left, top = x + (side - w) / 2, y + (side - h) / 2
        self.axes.imshow(
            tile.pixels, extent=(left, left + w, top + h, top), aspect="auto"
        )

    def frame(self, x: float, y: float, side: float, right: bool | None) -> None:
        """Draw around a picture: dashed where it is a mistake."""
        ink, width = ("#dddddd", 0.8) if right is None else (_INKS[right], 1.5)
        line: Any = (0, (3, 1.5)) if right is False else "-"
        look: Any = {"edgecolor": ink, "linewidth": width, "linestyle": line}
        self._box(x, y, side, side, fill=False, **look)

    def _box(self, x: float, y: float, w: float, h: float, **look: Any) -> None:  # noqa: ANN401
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), w, h, **{"linewidth": 0, **look}))


def _draw_section(
    pen: _Pen, sheet: _Sheet, section: Section, x: float, y: float
) -> None:
    if section.heading:
        room = sheet.block - text_width(section.note, _TEXT) - 2 * _GAP
        done = pen.write(section.heading, x, y, room, points=_HEADING)
        below = y + _HEADING - _TEXT  # on the same baseline
        pen.write(section.note, x + done + _GAP, below, sheet.block, colour=GREY)
    y += sheet.head
    for number, cell in enumerate(section.cells):
        line, place = divmod(number, sheet.across)
        left = x + place * (sheet.side + _GAP)
        top = y + line * (sheet.side + sheet.caption + _GAP)
        pen.show(cell.tile, left, top, sheet.side)
        pen.frame(left, top, sheet.side, cell.right)
        _caption(pen, cell, left, top + sheet.side + 2, sheet.side)


def _caption(pen: _Pen, cell: Cell, x: float, y: float, width: float) -> None:
    """Write what is said of an image; each name alone, whatever its direction."""
    ink, mark = _INKS[cell.right], _MARKS[cell.right]
    indent = pen.write(mark, x, y, width, colour=ink) + 2 if mark else 0.0
    value = pen.write(cell.value, x + width, y, width, colour=ink, align="right")
    room = width - indent - value - (3 if cell.value else 0)
    pen.write(cell.label, x + indent, y, room, colour=ink)
    if cell.truth:
        y += _LINE * _TEXT
        indent = pen.write("is", x, y, width, colour=GREY) + 3
        pen.write(cell.truth, x + indent, y, width - indent)


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, max(8, int(width / (0.52 * _TEXT))))
