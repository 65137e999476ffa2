"""Pixels: images decoded once and kept from one epoch to the next.

They are kept as `featcache.vision.words`: four bytes a pixel, as both decoders give
them and the compiled kernel reads them. Three bytes would take a quarter less room and
a second kernel, but gain no time: 189 us to resize a random box, against 184.
"""

import math
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from featcache.core.errors import BadImage, BadImagesError
from featcache.core.finetune_spec import Store
from featcache.core.manifest import Manifest
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.core.text import plural, shown
from featcache.vision.decode import read_file
from featcache.vision.shelves import Shelf, choose_shelf
from featcache.vision.threads import Threads
from featcache.vision.viewer import Viewer
from featcache.vision.views import Pixels, resized_size
from featcache.vision.words import Words, copied, image_of

Rows = npt.NDArray[np.int64]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True, eq=False)
class Source:
    """Image files and how they are decoded.

    Parameters
    ----------
    manifest : Manifest
        The files.
    viewer : Viewer
        Decodes, and makes views.
    size : int, optional
        What larger images are resized to, pixels of the shorter side.
    """

    manifest: Manifest
    viewer: Viewer
    size: int | None = None

    def decode(self, sample_index: int) -> Words:
        """Decode an image.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.

        Returns
        -------
        ndarray of uint32, shape (h, w)
            See `featcache.vision.words`.

        Raises
        ------
        UnusableImageError
            With the reason.
        """
        words = self.viewer.words(read_file(self.manifest.file(sample_index)))
        if self.size is None or min(words.shape) <= self.size:
            return words
        image = image_of(words).convert("RGB")
        small = resized_size(*image.size, self.size)
        return copied(image.resize(small, Image.Resampling.BILINEAR))

    def room(self, sample_index: int) -> int:
        """Return how many bytes an image takes decoded, as its header says.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.

        Returns
        -------
        int
            0 for what is no image: decoding finds out why.
        """
        file = self.manifest.file(sample_index)
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait
                return 0
            with Image.open(file) as image:
                size = image.size
        except Exception:
            return 0
        if self.size is not None and min(size) > self.size:
            size = resized_size(*size, self.size)
        return 4 * math.prod(size)

    def bad(self, sample_index: int, error: UnusableImageError) -> BadImage:
        """Return which image it is and what is wrong with it.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.
        error : UnusableImageError
            From `decode`.

        Returns
        -------
        BadImage
            Path and reason.
        """
        return BadImage(shown(self.manifest.file(sample_index)), str(error))


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
        if kept is not None:
            return kept
        try:
            return self.source.decode(sample_index)
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
        return self.source.viewer.fixed(self.read(sample_index))

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
