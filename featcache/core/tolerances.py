"""How far two computations of one feature may lie apart."""

import numpy as np
import numpy.typing as npt

from featcache.core.specs import FeatureSpec

# All relative to the largest value of the row.
# float32: the order of its sums changes with batch size, threads, implementation and
# processor; measured up to 2e-6 for ResNet-18 and -50 (docs/reproducibility.md).
FLOAT32 = 1e-5
# float16 keeps 11 bits: rounding alone moves a value by up to 2**-11 = 4.9e-4.
FLOAT16 = 1e-3
# bfloat16 keeps 8 bits: each layer rounds by up to 2**-9 = 2e-3, and a ResNet's
# roundings add up to several of these.
BFLOAT16 = 2e-2


def tolerance(spec: FeatureSpec) -> float:
    """Return how far a feature that is computed again may lie from the stored one.

    Parameters
    ----------
    spec : FeatureSpec
        Its precision of arithmetic, and the dtype of the stored features.

    Returns
    -------
    float
        Relative to the largest value of the row.
    """
    if spec.precision == "bfloat16":
        return BFLOAT16
    return FLOAT16 if spec.dtype == "float16" else FLOAT32


def relative_errors(
    stored: npt.NDArray[np.floating], computed: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Return how far each row lies from the stored one.

    Parameters
    ----------
    stored, computed : ndarray, shape (n, D)
        Features.

    Returns
    -------
    ndarray of float64, shape (n,)
        Largest difference over the largest stored value; infinite where a number is
        not finite, or only the stored row is zero.
    """
    a, b = stored.astype(np.float64), computed.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.abs(a - b).max(axis=1) / np.abs(a).max(axis=1)
    errors[(a == b).all(axis=1)] = 0.0
    result: npt.NDArray[np.float64] = np.where(np.isnan(errors), np.inf, errors)
    return result
