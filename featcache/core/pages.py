"""What the page of a report shows: plain data, measured and named, not yet HTML."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.audits import AuditReport
from featcache.core.histories import RunHistory
from featcache.core.intervals import Interval

NO_TILE = -1
SHEET = 8
"""Tiles along each side of a sheet."""

FINDINGS = 12
"""How many findings of each kind of an audit have a picture."""


@dataclass(frozen=True)
class Picture:
    """One image that the page names."""

    path: str  # printable, in the data folder
    label: int  # its class; among the page's
    split: str
    tile: int = NO_TILE  # its place in the sheets; none where there was no room
    note: str = ""  # why it has no tile: the file has moved, or has changed


@dataclass(frozen=True)
class Guess:
    """What a model says of one image."""

    label: int
    probability: float


@dataclass(frozen=True)
class Cell:
    """The images of one class that were predicted as one class."""

    true: int
    predicted: int
    count: int  # at least 1


@dataclass(frozen=True)
class Figure:
    """A number, and how sure it is."""

    name: str
    value: str
    interval: str = ""  # in words; empty where there is none
    meaning: str = ""  # a sentence for those who do not know it


Facts = tuple[tuple[str, str], ...]
"""Names and values, printable."""


@dataclass(frozen=True, kw_only=True)
class RunPart:
    """One run: how good it is, where it errs, how it came about.

    Parameters
    ----------
    letter : str
        A, B, C: as the comparison calls it.
    name, kind, source : str
        Its folder; how it was trained; the cache or folder that it was measured on.
    split : str
        Which part of that.
    images, skipped : int
        How many were scored, and could not be.
    accuracy : float
        Share that is right.
    accuracy_interval : (float, float)
        95 %, Wilson's.
    figures : tuple of Figure
        The other numbers.
    history : RunHistory, optional
        None where the solver has no epochs.
    no_history : str
        Why there is none.
    cells : tuple of Cell
        The confusion matrix without its zeros, by class and prediction.
    mistakes : tuple of int
        Pictures, the most confident first; there may be fewer than were made.
    guesses : mapping of int to Guess
        Of each picture that was scored.
    facts, settings, provenance : Facts
        Of the model, and of its report.
    """

    letter: str
    name: str
    kind: str
    source: str
    split: str
    images: int
    skipped: int
    accuracy: float
    accuracy_interval: Interval
    figures: tuple[Figure, ...]
    history: RunHistory | None
    no_history: str
    cells: tuple[Cell, ...]
    mistakes: tuple[int, ...]
    guesses: Mapping[int, Guess]
    facts: Facts
    settings: Facts
    provenance: Facts

    @property
    def wrong(self) -> int:
        """How many images are predicted as another class."""
        return sum(cell.count for cell in self.confused)

    @property
    def confused(self) -> list[Cell]:
        """The cells off the diagonal, the largest first."""
        off = [cell for cell in self.cells if cell.true != cell.predicted]
        return sorted(off, key=lambda c: (-c.count, c.true, c.predicted))


@dataclass(frozen=True)
class Duel:
    """Two of the runs on the same images."""

    a: str
    b: str
    difference: float  # accuracy of a minus that of b
    interval: Interval
    p: str
    verdict: str


@dataclass(frozen=True)
class ComparisonPart:
    """All of the runs on the images that every one was given."""

    images: int
    unpaired: int  # images that only some were given; left out
    rivals: tuple[tuple[str, str, float, Interval], ...]  # letter, name, accuracy
    duels: tuple[Duel, ...]
    worth: str  # whether fine-tuning was; empty where that cannot be said


@dataclass(frozen=True, eq=False)
class MapPart:
    """Images as points of a plane.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 2)
        One a picture.
    pictures : tuple of int
        Which.
    images : int
        How many usable ones the cache has.
    method : {"pca", "tsne"}
        How they were brought down to the plane.
    source : str
        The cache, and whose features it holds.
    """

    points: npt.NDArray[np.float32]
    pictures: tuple[int, ...]
    images: int
    method: str
    source: str


@dataclass(frozen=True)
class AuditPart:
    """What an audit of the cache found.

    Parameters
    ----------
    report : AuditReport
        All of it.
    pictures : mapping of str to int
        Of the paths that the page shows a picture of.
    """

    report: AuditReport
    pictures: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Page:
    """Everything that a report shows.

    Parameters
    ----------
    title : str
        Of one run its name.
    made : str
        When and by what.
    classes : tuple of str
        C names, printable.
    pictures : tuple of Picture
        All images that are named with a picture, or could be.
    sheets : tuple of bytes
        JPEGs of `SHEET` by `SHEET` tiles each, by row.
    runs : tuple of RunPart
        At least one.
    comparison : ComparisonPart, optional
        Of several runs.
    map : MapPart or str
        Why there is none.
    audit : AuditPart or str
        Why there is none.
    """

    title: str
    made: str
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    sheets: tuple[bytes, ...]
    runs: tuple[RunPart, ...]
    comparison: ComparisonPart | None
    map: MapPart | str
    audit: AuditPart | str

    @property
    def drawn(self) -> int:
        """How many images have a tile."""
        return sum(picture.tile != NO_TILE for picture in self.pictures)
