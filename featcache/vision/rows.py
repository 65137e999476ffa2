"""Rows of a block while they are computed."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from featcache.core.status import Status

_EXPONENT = 0x7C00  # bits of a float16; all of them are set in infinities and NaN


@dataclass
class BlockRows:
    """The rows of one block, filled in place.

    Parameters
    ----------
    features : ndarray of float32 or float16, shape (b, D) or (b, V, D)
        NaN in rows whose image cannot be used, and in views that nobody wants.
    digests : ndarray of uint8, shape (b, 32)
        sha256 of each image file; zeros where it could not be read.
    status : ndarray of uint8, shape (b,)
        `Status`; rows that are not PENDING are left as they are.
    counts : ndarray of int64, shape (b,)
        How many views of each row are wanted.
    reasons : dict of int to str
        Why a row of the block could not be used.
    computed : int
        How many images went through the backbone.
    """

    features: npt.NDArray[np.floating]
    digests: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    reasons: dict[int, str] = field(default_factory=dict)
    computed: int = 0

    @classmethod
    def pending(
        cls,
        size: int,
        row_shape: int | tuple[int, ...],
        dtype: str,
        counts: npt.NDArray[np.int64] | None = None,
    ) -> "BlockRows":
        """Return rows of which none is done.

        Parameters
        ----------
        size : int
            b.
        row_shape : int or tuple of int
            Of a row's features: D, ``(D,)`` or ``(V, D)``.
        dtype : str
            Of the features.
        counts : ndarray of int64, shape (b,), optional
            How many views of each row are wanted; one without it.

        Returns
        -------
        BlockRows
            Features all NaN.
        """
        shape = (row_shape,) if isinstance(row_shape, int) else row_shape
        return cls(
            np.full((size, *shape), np.nan, dtype),
            np.zeros((size, 32), np.uint8),
            np.full(size, Status.PENDING, np.uint8),
            np.ones(size, np.int64) if counts is None else counts,
        )

    @property
    def views(self) -> npt.NDArray[np.floating]:
        """The features as (b, V, D), whatever V is."""
        return self.features[:, None] if self.features.ndim == 2 else self.features

    def finite(self) -> npt.NDArray[np.bool_]:
        """Tell which rows have finite numbers in every view that is wanted.

        Returns
        -------
        ndarray of bool, shape (b,)
            False also where a view is missing.
        """
        finite = _all_finite(self.views)
        unwanted = np.arange(finite.shape[1]) >= self.counts[:, None]
        every: npt.NDArray[np.bool_] = np.all(finite | unwanted, axis=1)
        return every


def _all_finite(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Tell where all numbers along the last axis are finite."""
    if values.dtype == np.float16:
        # numpy asks float16 one by one; this takes a fifteenth of the time.
        bits = values.view(np.uint16) & np.uint16(_EXPONENT)
        finite: npt.NDArray[np.bool_] = bits.max(axis=-1) != _EXPONENT
    else:
        finite = np.isfinite(values).all(axis=-1)
    return finite
