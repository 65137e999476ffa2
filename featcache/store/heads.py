"""Heads as tensors and JSON of a model file, and back; hostile until checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.checks import AT_LEAST_1, POSITIVE, one_of, require
from featcache.core.heads import LinearHead
from featcache.core.knn import Head, KnnHead

Tensors = Mapping[str, npt.NDArray[Any]]

# Beyond 1 by more than rounding: no coordinate of a vector of length one.
_LONGEST = 1.001


def pack_head(head: Head) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return what a model file says of a head.

    Parameters
    ----------
    head : LinearHead or KnnHead
        Any.

    Returns
    -------
    dict of str to ndarray, dict
        Tensors by name, in C order; and JSON data, nothing for a plain linear head, so
        that a reader of the first format knows what it can read.
    """
    match head:
        case LinearHead():
            tensors = {
                "head.weight": np.ascontiguousarray(head.weight, np.float32),
                "head.bias": np.ascontiguousarray(head.bias, np.float32),
            }
            return tensors, {"normalize": True} if head.normalize else {}
        case KnnHead():
            bank = {
                "head.bank": np.ascontiguousarray(head.bank, np.float32),
                "head.labels": np.ascontiguousarray(head.labels, np.int32),
            }
            fields = {"k": head.k, "temperature": head.temperature}
            return bank, {"kind": "knn", **fields}


def unpack_head(
    tensors: Tensors, fields: Mapping[str, Any], classes: int, embed_dim: int
) -> Head:
    """Return the head that a model file describes.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        All of the file.
    fields : mapping
        Its JSON.
    classes : int
        C.
    embed_dim : int
        D of the backbone.

    Returns
    -------
    LinearHead or KnnHead
        With shapes, dtypes and settings that fit.

    Raises
    ------
    KeyError, TypeError, ValueError
        When the file describes no head.
    """
    kind = fields.get("kind", "linear")
    if kind == "linear":
        return _linear(tensors, fields, (classes, embed_dim))
    if kind == "knn":
        return _knn(tensors, fields, classes, embed_dim)
    raise ValueError(f"its head is of an unknown kind, {kind!r}")


def _linear(
    tensors: Tensors, fields: Mapping[str, Any], expected: tuple[int, int]
) -> LinearHead:
    normalize = fields.get("normalize", False)
    head = LinearHead(tensors["head.weight"], tensors["head.bias"], normalize)
    if head.weight.shape != expected or head.bias.shape != expected[:1]:
        raise ValueError(f"its head is {head.weight.shape}, expected {expected}")
    require_dtype(np.float32, head.weight, head.bias)
    require(head, normalize=one_of(False, True))
    return head


def _knn(
    tensors: Tensors, fields: Mapping[str, Any], classes: int, embed_dim: int
) -> KnnHead:
    bank, labels = tensors["head.bank"], tensors["head.labels"]
    head = KnnHead(bank, labels, classes, fields["k"], fields["temperature"])
    n = len(labels) if labels.ndim == 1 else 0
    if not n or bank.shape != (n, embed_dim):
        raise ValueError(
            f"its bank is {bank.shape} with labels {labels.shape}, expected "
            f"(n, {embed_dim}) with (n,)"
        )
    require_dtype(np.float32, bank)
    if labels.dtype != np.int32:
        raise TypeError(f"its labels are {labels.dtype}, expected int32")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"its labels are not all from 0 to {classes - 1}")
    # Also false for what is not a number, with no copy as large as the bank.
    if not (bank.min() >= -_LONGEST and bank.max() <= _LONGEST):
        raise ValueError("its bank does not hold features of length one")
    require(head, k=AT_LEAST_1, temperature=POSITIVE)
    return head


def require_dtype(dtype: type[np.generic], *tensors: npt.NDArray[Any]) -> None:
    """Refuse tensors of another dtype.

    Parameters
    ----------
    dtype : numpy type
        What each must have.
    *tensors : ndarray
        Of a file.

    Raises
    ------
    TypeError
        When one has another.
    """
    if any(tensor.dtype != dtype for tensor in tensors):
        raise TypeError(f"its tensors are not all {np.dtype(dtype)}")
