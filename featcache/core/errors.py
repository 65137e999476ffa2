"""Errors of featcache: each says what is, what was expected and what to do.

Everything the package raises on purpose is a `FeatcacheError`; the command line
prints those in one line and exits with 1. Any other exception is a bug of ours and
keeps its traceback.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class FeatcacheError(Exception):
    """Base of all errors that featcache raises on purpose."""


class SpecError(FeatcacheError, ValueError):
    """A setting has a value that cannot work."""


class DataError(FeatcacheError, ValueError):
    """A folder of images is not what a data set looks like."""


class UnreachableError(DataError):
    """What holds the images does not answer, or refuses access: the work has to end."""


class DownloadError(FeatcacheError, OSError):
    """A file could not be had from the network, or is not the one expected."""


class WeightsError(FeatcacheError, ValueError):
    """A weights file cannot be read or belongs to another network."""


class DeviceError(FeatcacheError, RuntimeError):
    """The device asked for is not there, or cannot do what is asked of it."""


class DependencyError(FeatcacheError, ImportError):
    """A library is needed that is not installed."""


class StorageError(FeatcacheError, OSError):
    """A file could not be written: no space, no permission, an I/O error."""


class CacheError(FeatcacheError):
    """Base of what can be wrong with a cache file."""


class CacheNotFoundError(CacheError, FileNotFoundError):
    """There is no cache where one was expected."""


class CacheCorruptError(CacheError, ValueError):
    """The file is not a featcache cache, or its bytes do not match its digests."""


class CacheMismatchError(CacheError, ValueError):
    """The cache was made from other images, another view or other weights."""


class CacheBusyError(CacheError, RuntimeError):
    """Another process is writing this cache."""


class ModelError(FeatcacheError, ValueError):
    """A model file is corrupt, or was made for another backbone or other weights."""


class CheckpointError(FeatcacheError, ValueError):
    """A checkpoint is damaged, or belongs to another training than the one wanted."""


class DecoderHungError(FeatcacheError, RuntimeError):
    """Decoding an image does not end; the next run tries it apart."""


class NumericError(FeatcacheError, ArithmeticError):
    """A network's numbers overflowed or are not numbers."""


class TrainingError(FeatcacheError, ValueError):
    """A head or network cannot be trained on this data with these settings."""


class PeerError(FeatcacheError, RuntimeError):
    """Another process of the same training has failed, and says why itself."""


@dataclass(frozen=True)
class BadImage:
    """One image that could not be used."""

    path: str  # as the user would type it, undecodable bytes escaped
    reason: str


class DamagedRowsError(CacheCorruptError):
    """Rows of a cache are not what they should be.

    Parameters
    ----------
    message : str
        One line: how many, the first of them, and what to do.
    rows : sequence of BadImage
        Every one of them: its path, and what is wrong.
    """

    def __init__(self, message: str, rows: Sequence[BadImage]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class ImageError(DataError):
    """One image cannot be used; the message is the reason without its path."""


class BadImagesError(DataError):
    """Some images of a folder cannot be used.

    Parameters
    ----------
    message : str
        One line: how many, and what to do.
    images : sequence of BadImage
        Every one of them.
    """

    def __init__(self, message: str, images: Sequence[BadImage]) -> None:
        super().__init__(message)
        self.images = tuple(images)


def bad_images_error(bad: Sequence[BadImage], images: int) -> BadImagesError:
    """Return the error that names the images that could not be used.

    Parameters
    ----------
    bad : sequence of BadImage
        All of them, at least one.
    images : int
        How many there are, good and bad.

    Returns
    -------
    BadImagesError
        To be raised.
    """
    first = f"{bad[0].path}: {bad[0].reason}"
    others = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
    return BadImagesError(
        f"{len(bad):,} of {images:,} images cannot be used ({first}{others}); the "
        "features of all others are kept. Mend or remove them and run again, or pass "
        "--on-error skip to go on without them",
        bad,
    )


class Interrupted(KeyboardInterrupt):
    """The user stopped the work; the message says what is kept and how to go on."""
