"""Decoding for training: image files to the pixels that are kept of them."""

import io
import math
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from featcache.core.errors import BadImage
from featcache.core.locations import Location
from featcache.core.manifest import Manifest
from featcache.core.status import UnusableImageError
from featcache.core.text import shown
from featcache.vision.decode import read_file
from featcache.vision.reading import PlaceError, read_bytes
from featcache.vision.viewer import Viewer
from featcache.vision.views import resized_size
from featcache.vision.words import Words, copied, image_of


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

    def whole(self, sample_index: int) -> Words:
        """Decode an image at its full resolution.

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
        return self.viewer.words(read_file(self.manifest.file(sample_index)))

    def decode(self, sample_index: int) -> Words:
        """Decode an image, at the size that is kept.

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
        words = self.whole(sample_index)
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
        place = self.manifest.file(sample_index)
        try:
            with Image.open(_head(place)) as image:
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


def _head(place: Location) -> Path | io.BytesIO:
    """Return what Pillow reads an image's size from."""
    if not isinstance(place, Path):
        return io.BytesIO(read_bytes(place))
    if not stat.S_ISREG(place.stat().st_mode):  # opening a pipe would wait
        raise PlaceError("not a regular file")
    return place
