"""The viewer: bytes of an image file to its view, by the fastest way that is exact.

There are three ways, of one result: Pillow resizes the whole image; Pillow resizes in
two passes what the crop shows; compiled code does that, on pixels that simplejpeg has
decoded where it can. A way is taken if what it needs is installed, if there are enough
images to be worth its start, and if it agrees with Pillow on a few pictures first.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from PIL import Image

from featcache.core.clock import Clock
from featcache.core.specs import AugmentSpec, ViewSpec
from featcache.core.view_specs import TUTORIAL
from featcache.core.viewed import view_random
from featcache.vision.augment import Draw, cut
from featcache.vision.decode import loaded, opened
from featcache.vision.kernel import Kernel
from featcache.vision.turbojpeg import JpegDecoder
from featcache.vision.views import Pixels, render
from featcache.vision.ways import (
    Window,
    jpeg_here,
    kernel_here,
    objection_to_passes,
)
from featcache.vision.window import across_first, two_passes
from featcache.vision.words import Words, copied, image_of, words_of

# The compiled way takes 0.15 s to start, its comparison with Pillow included, and saves
# a core 1.3 ms an image (scripts/bench/view.py measures both): two cores gain from here
# on, and more of them lose little.
PAYS_FROM = 200  # images


@dataclass(frozen=True)
class Viewer:
    """How the bytes of an image become its view; threads may share it.

    Parameters
    ----------
    view : ViewSpec
        The crop.
    window : callable
        From a decoded image and a view to pixels.
    kernel : Kernel, optional
        Does the window's work where it can.
    jpeg : JpegDecoder, optional
        Decodes for the kernel where it can.
    description : mapping of str to str
        What decodes ("decode"), what resizes and crops ("view"), and why nothing
        faster does; for people and provenance.
    """

    view: ViewSpec
    window: Window = render
    kernel: Kernel | None = None
    jpeg: JpegDecoder | None = None
    description: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def plain(
        cls, view: ViewSpec, why: str = "nothing faster was asked for"
    ) -> "Viewer":
        """Return the viewer that needs no start: Pillow alone, as everywhere else.

        Parameters
        ----------
        view : ViewSpec
            The crop.
        why : str
            What speaks against the others.

        Returns
        -------
        Viewer
            The others give its pixels.
        """
        return cls(view, description=_described(why, "whole image", why))

    @classmethod
    def fastest(cls, view: ViewSpec, expected: int | None = None) -> "Viewer":
        """Return the fastest viewer there is; to be called before workers start.

        Parameters
        ----------
        view : ViewSpec
            The crop.
        expected : int, optional
            How many images will come; very many, if nobody knows.

        Returns
        -------
        Viewer
            Whose description says what is not used, and why.
        """
        if expected is not None and expected < PAYS_FROM:
            few = f"the start of a faster way pays from {PAYS_FROM} images on"
            return cls.plain(view, f"{few}, here are {expected}")
        kernel, why = kernel_here()
        if kernel is None:
            against = objection_to_passes()
            window, name = (render, "whole image") if against else _TWO_PASSES
            why = f"{why}; {against}" if against else why
            alone = "simplejpeg gains nothing without the compiled window"
            return cls(view, window, description=_described(alone, name, why))
        jpeg, why = jpeg_here()
        description = {
            "decode": f"simplejpeg {jpeg.version}" if jpeg else f"{_pillow()}: {why}",
            "view": f"compiled window (llvmlite {version('llvmlite')})",
        }
        return cls(view, two_passes, kernel, jpeg, description)

    def __call__(self, data: bytes, clock: Clock) -> Pixels:
        """Return the view of an image.

        Parameters
        ----------
        data : bytes
            The file; see `featcache.vision.decode.decode`.
        clock : Clock
            Told the time of the stages "decode" and "view".

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Those of `featcache.vision.decode.decode_view`.

        Raises
        ------
        UnusableImageError
            With the reason, whatever the bytes are.
        """
        with ExitStack() as until_done:
            with clock.stage("decode"):
                image = until_done.enter_context(opened(data, self.view))
                source = self._decoded(image, data)
            with clock.stage("view"):
                return self._window(source)

    def several(
        self, data: bytes, clock: Clock, digest: bytes, count: int, how: AugmentSpec
    ) -> list[Pixels]:
        """Return the view of an image and random ones; it is decoded once.

        Parameters
        ----------
        data : bytes
            The file.
        clock : Clock
            Told the time of the stages "decode" and "view".
        digest : bytes
            sha256 of the file, from which the random views follow.
        count : int
            How many views in all.
        how : AugmentSpec
            How the others are drawn.

        Returns
        -------
        list of ndarray of uint8, shape (crop, crop, 3)
            The first is that of a call.

        Raises
        ------
        UnusableImageError
            With the reason, whatever the bytes are.
        """
        if count == 1:
            return [self(data, clock)]
        with ExitStack() as until_done:
            with clock.stage("decode"):
                image = until_done.enter_context(opened(data, self.view))
                source = self._decoded(image, data)
            with clock.stage("view"):
                words = words_of(source) if isinstance(source, Image.Image) else source
                drawn = [
                    self.drawn(words, view_random(how, digest, view), how)
                    for view in range(1, count)
                ]
                return [self._window(source), *drawn]

    def words(self, data: bytes) -> Words:
        """Return the whole image, to be kept.

        Parameters
        ----------
        data : bytes
            The file.

        Returns
        -------
        ndarray of uint32, shape (h, w)
            Upright if the view's policy says so; see `featcache.vision.words`.

        Raises
        ------
        UnusableImageError
            With the reason, whatever the bytes are.
        """
        with opened(data, self.view) as image:
            words = self.jpeg(data, image, self.view.exif) if self.jpeg else None
            if words is None:
                words = copied(loaded(image, self.view.exif))
            return words

    def fixed(self, words: Words) -> Pixels:
        """Return the view of an image that was kept.

        Parameters
        ----------
        words : ndarray of uint32, shape (h, w)
            From `words`.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Those of a call with its file.
        """
        return self._window(words)

    def drawn(
        self, words: Words, random: np.random.Generator, how: AugmentSpec = TUTORIAL
    ) -> Pixels:
        """Return a random view of an image that was kept.

        Parameters
        ----------
        words : ndarray of uint32, shape (h, w)
            From `words`.
        random : numpy.random.Generator
            See `featcache.vision.augment.Draw.of`.
        how : AugmentSpec
            How the view is drawn.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Those of `featcache.vision.augment.augment`.
        """
        draw = Draw.of(_size(words), random, how)
        left, top, right, lower = draw.box
        if self.kernel is None or not across_first(right - left, lower - top):
            return cut(image_of(words), self.view.crop, draw)
        box = words[top:lower, left:right]
        return self.kernel.resized(box, self.view.crop, mirrored=draw.mirrored)

    def _decoded(self, image: Image.Image, data: bytes) -> Image.Image | Words:
        if self.jpeg and self._compiled(*image.size):
            words = self.jpeg(data, image, self.view.exif)
            if words is not None:
                return words
        return loaded(image, self.view.exif)

    def _window(self, source: Image.Image | Words) -> Pixels:
        width, height = _size(source)
        if self.kernel and self._compiled(width, height):
            words = words_of(source) if isinstance(source, Image.Image) else source
            return self.kernel(words, self.view)
        if not isinstance(source, Image.Image):
            source = image_of(source).convert("RGB")
        window = self.window if across_first(width, height) else render
        return window(source, self.view)

    def _compiled(self, width: int, height: int) -> bool:
        return (
            self.kernel is not None
            and across_first(width, height)
            and self.kernel.takes(width, height, self.view)
        )


def _size(source: Image.Image | Words) -> tuple[int, int]:
    """Return width and height."""
    if isinstance(source, Image.Image):
        return source.size
    height, width = source.shape
    return width, height


_TWO_PASSES: tuple[Window, str] = (two_passes, "two passes")


def _pillow() -> str:
    return f"Pillow {version('pillow')}"


def _described(decode: str, view: str, why: str) -> dict[str, str]:
    return {"decode": f"{_pillow()}: {decode}", "view": f"{_pillow()}, {view}: {why}"}
