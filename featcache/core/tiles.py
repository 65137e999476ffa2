"""Tiles: small pictures of sample images, or what is to be said in their place."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Tile(NamedTuple):
    """A sample's picture.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3), optional
        RGB; None where there is nothing to show.
    note : str
        Why there is not; empty where there is.
    """

    pixels: npt.NDArray[np.uint8] | None
    note: str = ""
