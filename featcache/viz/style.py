"""Style: what all pictures have in common, so that they belong to one family."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featcache.core.errors import SpecError
from featcache.core.libraries import optional
from featcache.core.text import plural, shown
from featcache.viz.fonts import FIRST, Say, families_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featcache.viz.picture import Picture

BLUE, GREY = "#0072B2", "#6b6b6b"
RIGHT, WRONG = "#0072B2", "#D55E00"
# Okabe and Ito's colours for every kind of eye; yellow, hard to see on white, is last.
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
MARKERS = ("o", "^", "s")
_LINES = ("-", "--", ":")
KINDS = ("png", "svg")

_DPI = 200
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


class ClassStyle(NamedTuple):
    """How one class is drawn."""

    colour: str  # #rrggbb
    marker: str
    line: str


@contextmanager
def drawing(
    names: Iterable[str], say: Say, *, size: tuple[float, float]
) -> "Iterator[Picture]":
    """Give an empty picture whose fonts have the letters of some names.

    Parameters
    ----------
    names : iterable of str
        All that will be written in letters of the user.
    say : callable
        Told once of letters that no installed font has.
    size : (float, float)
        Width and height, inches.

    Yields
    ------
    Picture
        To be drawn on inside the ``with``, where every text gets the fonts; its layout
        is constrained.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    optional("matplotlib", "drawing", extra="plot")
    from featcache.viz.picture import Picture

    picture = Picture(families_for(names, say), size)
    with picture.looking():
        yield picture


def picture_kind(path: Path) -> str:
    """Return what a picture's file becomes, by its ending.

    Parameters
    ----------
    path : Path
        As the user gave it.

    Returns
    -------
    {"png", "svg"}
        In small letters.

    Raises
    ------
    SpecError
        When it is another ending, or there is none.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise SpecError(
            f"a picture's file ends in .png or .svg, got {shown(path.name)}"
        )
    return kind


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
    # No time of day: equal pictures make equal files.
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(path, format=kind, dpi=_DPI, metadata=metadata)


def class_styles(classes: int) -> list[ClassStyle]:
    """Return how each class is drawn: no two alike for up to 24 classes.

    Parameters
    ----------
    classes : int
        C.

    Returns
    -------
    list of ClassStyle
        C of them. Up to 8 differ by colour, up to 24 also by marker and line; beyond,
        colours run from dark to light, and markers take turns.
    """
    if classes <= len(COLOURS) * len(MARKERS):
        every = range(classes)
        return [
            ClassStyle(COLOURS[i % 8], MARKERS[i // 8], _LINES[i // 8]) for i in every
        ]
    module: Any = optional("matplotlib", "drawing", extra="plot")
    colours: Any = optional("matplotlib.colors", "drawing", extra="plot")
    run = module.colormaps["viridis"]
    return [
        # Not up to the lightest end, which white paper swallows.
        ClassStyle(
            colours.to_hex(run(0.92 * i / (classes - 1))), MARKERS[i % 3], _LINES[i % 3]
        )
        for i in range(classes)
    ]


def colour_note(classes: int) -> str:
    """Return what a legend says where there are more classes than colours.

    Parameters
    ----------
    classes : int
        C.

    Returns
    -------
    str
        Empty where every class has its own colour or marker.
    """
    if classes <= len(COLOURS) * len(MARKERS):
        return ""
    return (
        f"{plural(classes, 'class')}, more than colours: they run from dark (first) "
        "to light (last)"
    )


def text_width(text: str, points: float, families: Sequence[str] = (FIRST,)) -> float:
    """Return how wide a line of text is drawn, to be asked while `drawing`.

    Parameters
    ----------
    text : str
        One line.
    points : float
        Size of the letters.
    families : sequence of str
        See `featcache.viz.fonts.families_for`.

    Returns
    -------
    float
        Points, 1/72 inch.
    """
    manager: Any = optional("matplotlib.font_manager", "drawing", extra="plot")
    paths: Any = optional("matplotlib.textpath", "drawing", extra="plot")
    properties = manager.FontProperties(family=list(families), size=points)
    measured = paths.text_to_path.get_text_width_height_descent
    return float(measured(text, properties, ismath=False)[0])


def shortened(
    text: str, width: float, points: float, families: Sequence[str] = (FIRST,)
) -> str:
    """Return a line of text that fits while `drawing`: its middle may be left out.

    Parameters
    ----------
    text : str
        One line.
    width : float
        What there is room for, points; letters of 9 points are about 5 wide.
    points : float
        Size of the letters.
    families : sequence of str
        See `featcache.viz.fonts.families_for`.

    Returns
    -------
    str
        The text itself where it fits; else its beginning and its end, since names of
        many classes begin alike.
    """
    text = text[:2000]  # no name of a file is longer, and measuring takes time
    if text_width(text, points, families) <= width:
        return text
    letters = _letters(text)
    least, most = 0, len(letters)  # this many fit; this many do not
    while most - least > 1:
        kept = (least + most) // 2
        fits = text_width(_without_middle(letters, kept), points, families) <= width
        least, most = (kept, most) if fits else (least, kept)
    return _without_middle(letters, least)


def _without_middle(letters: Sequence[str], kept: int) -> str:
    head = (kept + 1) // 2
    tail = letters[len(letters) - kept + head :]
    return "".join((*letters[:head], _ELLIPSIS, *tail))


def _letters(text: str) -> list[str]:
    """Return letters together with the marks that belong to them."""
    letters: list[str] = []
    for c in text:
        if letters and (unicodedata.category(c)[0] == "M" or c == "\u200d"):
            letters[-1] += c
        else:
            letters.append(c)
    return letters
