"""Pixels: images decoded once and kept from one epoch to the next.

They are kept as `featcache.vision.words`: four bytes a pixel, as both decoders give
them and the compiled kernel reads them. Three bytes would take a quarter less room and
a second kernel, but gain no time: 189 us to resize a random box, against 184.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from featcache.core.errors import BadImage, BadImagesError
from featcache.core.finetune_spec import Store
from featcache.core.manifest import Manifest
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.core.text import plural
from featcache.vision.decoding import Source
from featcache.vision.shelves import Shelf, choose_shelf
from featcache.vision.threads import Threads
from featcache.vision.viewer import Viewer
from featcache.vision.views import Pixels
from featcache.vision.words import Words

Rows = npt.NDArray[np.int64]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True, eq=False)
class Images(AbstractContextManager["Images"]):
    """Decoded images, kept or decoded anew; threads may share them; ``with`` ends it.

    Parameters
    ----------
    source : Source
        Files and decoder.
    rows : ndarray of int64, shape (n,)
        Samples whose image can be used, in the order asked for.
    bad : tuple of BadImage
        The others.
    shelf : Shelf
        Where the pixels lie.
    """

    source: Source
    rows: Rows
    bad: tuple[BadImage, ...]
    shelf: Shelf

    @property
    def manifest(self) -> Manifest:
        """The samples."""
        return self.source.manifest

    @property
    def view(self) -> ViewSpec:
        """The fixed view, and the size of the random ones."""
        return self.source.viewer.view

    @property
    def description(self) -> str:
        """Where the images are kept, or why not; for people and reports."""
        return self.shelf.description

    def read(self, sample_index: int) -> Words:
        """Return the whole image.

        Parameters
        ----------
        sample_index : int
            One of the rows.

        Returns
        -------
        ndarray of uint32, shape (h, w)
            Read-only; see `featcache.vision.words`.

        Raises
        ------
        BadImagesError
            When it must be decoded anew and was damaged meanwhile.
        """
        kept = self.shelf.get(sample_index)
        return self._anew(self.source.decode, sample_index) if kept is None else kept

    def _anew(self, decode: Callable[[int], Words], sample_index: int) -> Words:
        try:
            return decode(sample_index)
        except UnusableImageError as error:
            raise _refusal([self.source.bad(sample_index, error)]) from None

    def fixed(self, sample_index: int) -> Pixels:
        """Return the deterministic view of an image.

        Parameters
        ----------
        sample_index : int
            One of the rows.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            RGB.

        Raises
        ------
        BadImagesError
            See `read`.
        """
        # What is measured must not depend on how small the kept images are.
        reduced = self.source.size is not None
        words = (
            self._anew(self.source.whole, sample_index)
            if reduced
            else self.read(sample_index)
        )
        return self.source.viewer.fixed(words)

    def drawn(self, sample_index: int, random: np.random.Generator) -> Pixels:
        """Return a random view of an image.

        Parameters
        ----------
        sample_index : int
            One of the rows.
        random : numpy.random.Generator
            See `featcache.vision.augment.Draw.of`.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            RGB.

        Raises
        ------
        BadImagesError
            See `read`.
        """
        return self.source.viewer.drawn(self.read(sample_index), random)

    def close(self) -> None:
        """Let go of the pixels; what is on the disk is deleted."""
        self.shelf.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def load_images(  # noqa: PLR0913 - what is loaded, where to, and by whom
    manifest: Manifest,
    rows: Rows,
    view: ViewSpec,
    *,
    threads: Threads,
    folder: Path,
    store: Store = "auto",
    size: int | None = None,
    on_error: OnError = "stop",
    tick: Callable[[int], object] = lambda _: None,
    share: int = 1,
) -> Images:
    """Decode every image once, so that none stops the training hours later.

    Parameters
    ----------
    manifest : Manifest
        The samples.
    rows : ndarray of int64, shape (n,)
        Which of them.
    view : ViewSpec
        The fixed view; its EXIF policy and crop are those of the random views too.
    threads : Threads
        Who decodes.
    folder : Path
        Where a file of pixels may lie while it is in use.
    store : {"auto", "ram", "disk", "off"}
        Where the pixels are kept; see `featcache.vision.shelves.choose_shelf`.
    size : int, optional
        Shorter side of kept images, pixels; smaller ones stay as they are. Without
        it they have their full resolution, as the classic augmentation wants it.
    on_error : {"stop", "skip"}
        What becomes of images that cannot be used: an error, or they are left out.
    tick : callable
        Called with the number of images just decoded.
    share : int
        How many processes of this machine load these images.

    Returns
    -------
    Images
        To be closed.

    Raises
    ------
    BadImagesError
        With every image that cannot be used, by path and reason: with ``"stop"`` when
        there is one, with ``"skip"`` when there is no other.
    SpecError
        When the memory asked for is not there.
    StorageError
        When the disk asked for is too small, or fills up.
    """
    source = Source(manifest, Viewer.fastest(view), size)
    told = rows[:0] if store == "off" else rows  # no room is needed to keep nothing
    rooms = threads.ordered(source.room, told.tolist())
    by_row = dict(zip(told.tolist(), rooms, strict=True))
    shelf = choose_shelf(by_row, store, folder, share)
    try:
        bad = _fill(shelf, source, rows, threads, tick)
        if bad and (on_error == "stop" or len(bad) == len(rows)):
            hint = ", or pass --on-error skip" if len(bad) < len(rows) else ""
            raise _refusal(list(bad.values()), hint)
    except BaseException:
        shelf.close()
        raise
    usable = np.array([row not in bad for row in rows.tolist()], bool)
    return Images(source, rows[usable], tuple(bad.values()), shelf)


def _fill(
    shelf: Shelf,
    source: Source,
    rows: Rows,
    threads: Threads,
    tick: Callable[[int], object],
) -> dict[int, BadImage]:
    """Decode all images; return those that cannot be used, by row."""

    def decode(sample_index: int) -> BadImage | None:
        try:
            shelf.put(sample_index, source.decode(sample_index))
        except UnusableImageError as error:
            return source.bad(sample_index, error)
        return None

    bad = {}
    with closing(threads.ordered(decode, rows.tolist())) as found:
        for sample_index, wrong in zip(rows.tolist(), found, strict=True):
            tick(1)
            if wrong is not None:
                bad[sample_index] = wrong
    return bad


def _refusal(images: Sequence[BadImage], hint: str = "") -> BadImagesError:
    first = images[0]
    if len(images) == 1:
        message = f"{first.path} cannot be used: {first.reason}"
    else:
        message = (
            f"{plural(len(images), 'image')} cannot be used, "
            f"first {first.path}: {first.reason}"
        )
    return BadImagesError(
        f"{message}; replace or remove the file and try again{hint}", images
    )
