"""The gallery: of any number of predictions the few that are worth a look."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from featcache.core.errors import DataError, SpecError
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import ViewSpec
from featcache.core.text import plural, shown
from featcache.stages.tiles import file_tile

if TYPE_CHECKING:
    from featcache.viz.picture import Picture

GRID_SIZE, MOST = 24, 400
_LONGEST = 256  # pixels of a tile: what 92 points have at 200 per inch

# What is worth a look comes first.
_WRONG, _RIGHT, _UNKNOWN = range(3)


class _Kept(NamedTuple):
    """A prediction in a heap, whose least is the one to be dropped first."""

    kind: int  # negative: mistakes are the last to go
    sure: (
        float  # what decides among their kind; those of unknown truth keep their order
    )
    order: int  # negative
    path: str
    label: str
    probability: float
    truth: str


@dataclass(eq=False)
class Gallery:
    """Keeps the most telling predictions of a stream, whatever its length.

    Parameters
    ----------
    classes : frozenset of str
        Printable names. The truth of an image is the nearest folder above it that is
        called as one of them, if there is one.
    size : int
        How many are kept: the most confident mistakes, then right ones, then those of
        which nobody knows the truth.
    truth : mapping of str to str
        Class names by path, where the user knows them.
    """

    classes: frozenset[str] = frozenset()
    size: int = GRID_SIZE
    truth: Mapping[str, str] = field(default_factory=dict)
    _heap: list[_Kept] = field(default_factory=list)
    _counts: list[int] = field(default_factory=lambda: [0, 0, 0])

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST:
            raise SpecError(f"grid_size must be from 1 to {MOST}, got {self.size}")

    def offer(self, path: str, label: str, probability: float) -> None:
        """Take a prediction into account.

        Parameters
        ----------
        path : str
            Printable.
        label : str
            What the model says.
        probability : float
            How sure it is.
        """
        given = self.truth.get(path)
        truth = shown(given) if given else folder_class(path, self.classes)
        label = shown(label)
        kind = _UNKNOWN if not truth else _RIGHT if label == truth else _WRONG
        order = sum(self._counts)
        self._counts[kind] += 1
        sure = 0.0 if kind == _UNKNOWN else probability
        kept = _Kept(-kind, sure, -order, path, label, probability, truth)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, kept)
        else:
            heapq.heappushpop(self._heap, kept)

    @property
    def paths(self) -> list[str]:
        """Of the images that are kept, those to be drawn first at the beginning."""
        return [kept.path for kept in self._chosen]

    @property
    def _chosen(self) -> list[_Kept]:
        return sorted(self._heap, reverse=True)

    def describe(self) -> str:
        """Return how many there are, how many are kept, and which.

        Returns
        -------
        str
            For people.
        """
        kept = [sum(k.kind == -kind for k in self._heap) for kind in range(3)]
        images = plural(sum(self._counts), "image")
        line = f"{len(self._heap):,} of {images}"
        if self._counts[_UNKNOWN] == sum(self._counts):
            return f"{line}, in their order"
        names = ("mistakes", "right ones", "of unknown truth")
        parts = [
            f"{kept[kind]:,} of {self._counts[kind]:,} {names[kind]}"
            for kind in range(3)
            if self._counts[kind]
        ]
        return f"{line}: {', '.join(parts)}; the most confident first"

    def source(self) -> str:
        """Return how the truth is known.

        Returns
        -------
        str
            For people.
        """
        if self.truth:
            return "truth: as given"
        if not self.classes:
            return "truth: not known"
        if self._counts[_UNKNOWN] == sum(self._counts):
            return "truth: not known, since no image lies in a folder named as a class"
        return "truth: the name of the folder that an image lies in"

    def draw(
        self,
        title: str,
        view: ViewSpec,
        files: Mapping[str, str],
        progress: Progress = SILENT,
    ) -> "Picture":
        """Draw what is kept.

        Parameters
        ----------
        title : str
            Above all.
        view : ViewSpec
            Its EXIF policy is that of the pictures, which show the whole image.
        files : mapping of str to str
            By printable path the file, where that is another.
        progress : Progress
            Told of letters that no font has.

        Returns
        -------
        Picture
            Of at least one image.

        Raises
        ------
        DataError
            When there was no prediction.
        DependencyError
            When matplotlib is not installed.
        """
        from featcache.viz.grids import Cell, Section, draw_grid

        if not self._heap:
            raise DataError("there is no prediction to draw: no image could be used")
        cells = []
        for kept in self._chosen:
            file = Path(files.get(kept.path, kept.path))
            right = None if kept.kind == -_UNKNOWN else kept.kind == -_RIGHT
            cells.append(
                Cell(
                    file_tile(file, view, _LONGEST),
                    kept.label,
                    f"{100 * kept.probability:.0f} %",
                    "" if right else kept.truth,
                    right,
                )
            )
        notes = (self.describe(), self.source())
        across = min(8, max(4, ceil(1.2 * len(cells) ** 0.5)))
        return draw_grid(
            [Section(cells)], title=title, notes=notes, across=across, say=progress.say
        )


def folder_class(path: str, classes: frozenset[str]) -> str:
    """Return the class whose folder an image lies in.

    Parameters
    ----------
    path : str
        Of the image, as it was named.
    classes : frozenset of str
        Names.

    Returns
    -------
    str
        The nearest folder above it with the name of a class; empty without one.

    Examples
    --------
    >>> folder_class("photos/val/ants/near/1.jpg", frozenset({"ants", "bees"}))
    'ants'
    """
    above = reversed(PurePath(path).parts[:-1])
    return next((name for name in above if name in classes), "")
