"""Predictions: what a model says of images, and what a file of them has."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featcache.core.heads import Floats
from featcache.core.reports import Report

Ranked = tuple[tuple[str, float], ...]
"""Classes and their probabilities, the most probable first."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    path: str
    label: str  # class name
    probability: float  # of that class, after the softmax
    top: Ranked = ()  # the K most probable classes, of which `label` is the first


class ImageFile(NamedTuple):
    """One image file as it was when it was listed; its name is what one would type."""

    name: str
    size: int
    mtime_ns: int

    @property
    def key(self) -> int:
        """A number below 2**62 that is the path's own, also in another process."""
        digest = hashlib.sha256(os.fsencode(self.name)).digest()
        return int.from_bytes(digest[:8], "big") >> 2


class Entry(NamedTuple):
    """What a file of predictions says of one image: its classes or an error."""

    path: str  # printable: see `featcache.core.text.shown`
    ranked: Ranked  # empty where the image could not be used
    error: str  # empty where it could
    size: int  # of the image file, bytes
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class PredictReport(Report):
    """What became of the images of one `featcache predict`."""

    out: Path | None
    images: int  # predicted now, found in the file already, and bad
    reused: int  # of these, found in the file already
    bad: int  # of these, could not be used
    seconds: float
    images_per_second: float


def rank(probabilities: Floats, classes: tuple[str, ...], top: int) -> list[Ranked]:
    """Return the most probable classes of each row.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (n, C)
        Rows sum to one.
    classes : tuple of str
        C names.
    top : int
        K, how many; all where there are fewer.

    Returns
    -------
    list of Ranked
        n of them, probabilities rounded to 6 digits; of equal ones the first class
        comes first, as with argmax.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(probabilities, order, 1)
    return [
        tuple((classes[c], round(p, 6)) for c, p in zip(labels, row, strict=True))
        for labels, row in zip(order.tolist(), values.tolist(), strict=True)
    ]
