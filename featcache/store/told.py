"""What a cache tells of itself: from its header and its smallest columns."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from featcache.core.displays import NAMED, Told, some
from featcache.core.errors import CacheError
from featcache.core.manifest import SPLITS
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import shown, size, times

_CLOSED = "closed; featcache.open_cache opens it again"


class ClosedColumns(dict[str, npt.NDArray[Any]]):
    """The columns of a closed cache: none, which is said when one is asked for.

    Parameters
    ----------
    path : Path
        Of the cache.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __missing__(self, name: str) -> NoReturn:
        raise closed(self._path)


def closed(path: Path) -> CacheError:
    """Return what is raised when a closed cache is asked for its rows.

    Parameters
    ----------
    path : Path
        Of the cache.

    Returns
    -------
    CacheError
        With what to do.
    """
    return CacheError(f"{shown(path)} is {_CLOSED}")


def cache_told(
    path: Path, spec: FeatureSpec, n: int, columns: Mapping[str, npt.NDArray[Any]]
) -> Told:
    """Yield what a person wants to know of a cache; no feature is read.

    Parameters
    ----------
    path : Path
        The file, or a pattern of files.
    spec : FeatureSpec
        Its identity.
    n : int
        N rows.
    columns : mapping of str to ndarray
        By dataset name; none of a closed cache.

    Yields
    ------
    (str, object)
        Names and values.
    """
    shape = spec.row_shape(spec.embed_dim)
    length = size(n * math.prod(shape) * np.dtype(spec.dtype).itemsize)
    row = f"{times(spec.map_shape or (spec.embed_dim,))} x {spec.dtype}"
    views = f"{spec.views} views x " if spec.views > 1 else ""
    yield "file", path
    yield "images", f"{n:,}{_splits(columns['splits']) if columns else ''}"
    yield "features", f"{spec.backbone} {spec.layer}, {views}{row}, {length}"
    if not columns:
        yield "state", _CLOSED
        return
    classes = columns["classes"]
    yield "classes", some(classes[:NAMED].tolist(), len(classes))
    skipped = int(np.count_nonzero(columns["status"] != Status.OK))
    if skipped:
        yield "skipped", f"{skipped:,} without features: their images are not usable"


def _splits(splits: npt.NDArray[np.uint8]) -> str:
    counts = {name: np.count_nonzero(splits == at) for at, name in enumerate(SPLITS)}
    return f" ({', '.join(f'{name} {n:,}' for name, n in counts.items() if n)})"
