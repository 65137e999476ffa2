"""The pictures of a report: as many as there is room for, in order of importance."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.features import Rows
from featcache.core.manifest import SPLITS
from featcache.core.metrics import Labels
from featcache.core.pages import SHEET, Picture
from featcache.core.progress import Progress
from featcache.core.seeds import generator
from featcache.core.text import shown
from featcache.core.tiles import Tile
from featcache.stages.tiles import TileSource

if TYPE_CHECKING:
    from featcache.vision.views import Pixels

UNKNOWN = "its folder is not known"

_SIDES = (128, 96, 64)  # pixels of a square: the largest of which all have room
_TRIED = 48  # pictures that the size is chosen by
_WHOLE = 1.6  # longer side of a thumbnail over that of the square in its middle

Place = tuple[TileSource, int]


@dataclass
class Album:
    """Images that a page names, the most important first.

    Parameters
    ----------
    classes : list of str
        Names of the page's classes; those of a cache may be added.
    pictures : list of Picture
        Without tiles as yet.
    """

    classes: list[str]
    pictures: list[Picture] = field(default_factory=list)
    _numbers: dict[bytes, int] = field(default_factory=dict)

    @property
    def paths(self) -> list[bytes]:
        """Path of each picture, as the data folder has it."""
        return list(self._numbers)

    def number(self, path: bytes) -> int | None:
        """Return the number of an image that is in the album.

        Parameters
        ----------
        path : bytes
            In the data folder.

        Returns
        -------
        int or None
            None where it is not.
        """
        return self._numbers.get(path)

    def add(self, path: bytes, class_name: str, split: int) -> int:
        """Add an image, unless it is there.

        Parameters
        ----------
        path : bytes
            In the data folder.
        class_name : str
            Its class, as the folder is called.
        split : int
            Number of its split.

        Returns
        -------
        int
            Its number.
        """
        if path not in self._numbers:
            if class_name not in self.classes:
                self.classes.append(class_name)
            label = self.classes.index(class_name)
            self._numbers[path] = len(self.pictures)
            self.pictures.append(Picture(shown(path), label, SPLITS[split]))
        return self._numbers[path]


def even_sample(labels: Labels, count: int) -> Rows:
    """Return rows of which each class has about as many, drawn at random.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class of each row.
    count : int
        At most so many.

    Returns
    -------
    ndarray of int64, shape (m,)
        Different ones, one of each class first, then another one of each.
    """
    order = generator(0, "even sample").permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    y = labels[by_class]
    starts = np.flatnonzero(np.r_[True, y[1:] != y[:-1]]) if len(y) else y
    sizes = np.diff(np.r_[starts, len(y)])
    turn = np.arange(len(y)) - np.repeat(starts, sizes)
    return by_class[np.argsort(turn, kind="stable")][:count]


def draw(
    album: Album, sources: Sequence[TileSource], room: int, progress: Progress
) -> tuple[tuple[Picture, ...], tuple[bytes, ...]]:
    """Draw the pictures of an album, the first ones if there is no room for all.

    Parameters
    ----------
    album : Album
        Whose pictures.
    sources : sequence of TileSource
        Where they may be; the first that knows a path has it.
    room : int
        Bytes of all sheets.
    progress : Progress
        Hears how many are drawn.

    Returns
    -------
    tuple of Picture
        With tiles, or with a note where the image is not what it was.
    tuple of bytes
        Sheets, JPEG files.
    """
    from featcache.vision.sheets import sheet_bytes

    places = _places(album, sources)
    side = _side(places, room)
    pictures = list(album.pictures)
    sheets: list[bytes] = []
    progress.begin("drawing", len(places), unit="image")
    try:
        with closing(_drawn(places, side, pictures, progress)) as drawn:
            while batch := list(islice(drawn, SHEET * SHEET)):
                sheet = sheet_bytes([square for _, square in batch], SHEET, side)
                room -= len(sheet)
                if room < 0:
                    break
                for at, (number, _) in enumerate(batch, len(sheets) * SHEET * SHEET):
                    pictures[number] = replace(pictures[number], tile=at)
                sheets.append(sheet)
    finally:
        progress.end()
    return tuple(pictures), tuple(sheets)


def _places(album: Album, sources: Sequence[TileSource]) -> list[Place | None]:
    """Return where each picture comes from, if any source knows its path."""
    wanted = np.array(album.paths, "S")
    found: list[Place | None] = [None] * len(wanted)
    for source in sources:
        _, rows, numbers = np.intersect1d(
            source.columns["paths"], wanted, return_indices=True
        )
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            found[number] = found[number] or (source, row)
    return found


def _drawn(
    places: Sequence[Place | None],
    side: int,
    pictures: list[Picture],
    progress: Progress,
) -> Generator[tuple[int, "Pixels"], None, None]:
    """Yield numbers and squares of what can be drawn; note why the others cannot."""
    from featcache.vision.sheets import middle_square

    with closing(_tiles(places, side)) as tiles:
        for number, tile in enumerate(tiles):
            progress.advance(1)
            if tile.pixels is None:
                pictures[number] = replace(pictures[number], note=shown(tile.note))
            else:
                yield number, middle_square(tile.pixels, side)


def _tiles(places: Sequence[Place | None], side: int) -> Generator[Tile, None, None]:
    from featcache.vision.threads import Threads

    def tile(place: Place | None) -> Tile:
        if place is None:
            return Tile(None, UNKNOWN)
        source, row = place
        return source.tile(row, round(_WHOLE * side))

    with Threads() as threads, closing(threads.ordered(tile, places)) as made:
        yield from made


def _side(places: Sequence[Place | None], room: int) -> int:
    """Return the largest side at which all pictures are likely to have room."""
    from featcache.vision.sheets import middle_square, sheet_bytes

    side = _SIDES[0]
    squares = [
        middle_square(tile.pixels, side)
        for tile in _tiles(places[:_TRIED], side)
        if tile.pixels is not None
    ]
    if not squares:
        return side
    each = len(sheet_bytes(squares, SHEET, side)) / len(squares)
    # A JPEG file grows with the side by a power below that of the area.
    return next(
        (s for s in _SIDES if len(places) * each * (s / side) ** 1.6 <= room),
        _SIDES[-1],
    )
