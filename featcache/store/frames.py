"""Rows of a cache as an Arrow table or a pandas frame; both libraries are optional."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featcache.core.libraries import optional
from featcache.core.manifest import SPLITS
from featcache.core.metrics import Labels
from featcache.core.text import shown

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Frame:
    """n rows as they leave a cache.

    Parameters
    ----------
    X : ndarray of float32 or float16, shape (n, D)
        Features.
    paths : ndarray of bytes, shape (n,)
        Relative to the data folder.
    splits : ndarray of uint8, shape (n,)
        Number of the split in `SPLITS`.
    labels : ndarray of int32, shape (n,)
        In [0, C).
    classes : sequence of str
        C names in label order.
    sample_index : ndarray of int64, shape (n,)
        Rows of the cache.
    """

    X: npt.NDArray[np.floating]
    paths: npt.NDArray[np.bytes_]
    splits: npt.NDArray[np.uint8]
    labels: Labels
    classes: Sequence[str]
    sample_index: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        r"""The paths as printable text: bytes that are no UTF-8 as ``\xNN``."""
        return [shown(path) for path in self.paths.tolist()]

    @property
    def class_names(self) -> list[str]:
        """The C names of classes as printable text."""
        return [shown(name) for name in self.classes]


def feature_names(embed_dim: int) -> list[str]:
    """Return the names of feature columns.

    Parameters
    ----------
    embed_dim : int
        D.

    Returns
    -------
    list of str
        ``f0`` to ``f{D-1}``.
    """
    return [f"f{i}" for i in range(embed_dim)]


def arrow_table(frame: Frame) -> "pa.Table":
    """Return rows as an Arrow table.

    Parameters
    ----------
    frame : Frame
        n rows.

    Returns
    -------
    pyarrow.Table
        Columns ``path``, ``split``, ``label``, ``class_name``, and ``features``, a
        fixed-size list of D numbers that shares its memory with ``frame.X``.

    Raises
    ------
    DependencyError
        When pyarrow is not installed.
    """
    pa = optional("pyarrow", "Arrow and Parquet", extra="export")
    flat = pa.array(np.ascontiguousarray(frame.X).reshape(-1))
    return pa.table(
        {
            "path": pa.array(frame.names, pa.string()),
            "split": _dictionary(pa, frame.splits.astype(np.int8), SPLITS),
            "label": pa.array(frame.labels),
            "class_name": _dictionary(pa, frame.labels, frame.class_names),
            "features": pa.FixedSizeListArray.from_arrays(flat, frame.X.shape[1]),
        }
    )


def pandas_frame(frame: Frame) -> "pd.DataFrame":
    """Return rows as a pandas frame.

    Parameters
    ----------
    frame : Frame
        n rows.

    Returns
    -------
    pandas.DataFrame
        Columns ``path``, ``split``, ``label``, ``class_name``, ``f0`` to ``f{D-1}``;
        the index is each row's number in the cache.

    Raises
    ------
    DependencyError
        When pandas is not installed.
    """
    pd = optional("pandas", "a pandas frame", extra="export")
    index = pd.Index(frame.sample_index, name="sample_index")
    told = pd.DataFrame(
        {
            "path": frame.names,
            "split": pd.Categorical.from_codes(frame.splits.astype(np.int8), SPLITS),
            "label": frame.labels,
            "class_name": pd.Categorical.from_codes(frame.labels, frame.class_names),
        },
        index=index,
    )
    names = feature_names(frame.X.shape[1])
    features = pd.DataFrame(np.array(frame.X), index=index, columns=names)
    return pd.concat([told, features], axis=1)


def _dictionary(pa: Any, codes: npt.NDArray[Any], names: Sequence[str]) -> Any:  # noqa: ANN401
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))
