"""Reading a cache's header: a file from elsewhere is hostile until checked.

Only datasets that lie in the file itself, contiguous and unfiltered, within the
file's length, of the expected dtype and shape, are ever looked at.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featcache.core.catalog import BACKBONES
from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    CacheNotFoundError,
    SpecError,
    StorageError,
)
from featcache.core.specs import FORMAT_VERSION, FeatureSpec
from featcache.core.text import shown
from featcache.store.layout import FORMAT, Column, data_columns

_MANIFEST_KINDS = {
    "classes": "S",
    "paths": "S",
    "labels": "<i4",
    "splits": "|u1",
    "sizes": "<i8",
    "mtimes_ns": "<i8",
}
_LONGEST_ATTRIBUTE = 1 << 16


@dataclass(frozen=True)
class Header:
    """What a cache file says of itself, checked.

    Parameters
    ----------
    path : Path
        The file.
    spec : FeatureSpec
        What made the features.
    provenance : mapping
        Versions, host, times: recorded, not identity.
    manifest_sha256 : str
        Digest of the manifest's columns.
    block_rows : int
        Rows of a block.
    columns : mapping of str to Column
        Where each dataset lies.
    length : int
        Bytes of the file.
    """

    path: Path
    spec: FeatureSpec
    provenance: Mapping[str, Any]
    manifest_sha256: str
    block_rows: int
    columns: Mapping[str, Column]
    length: int

    @property
    def rows(self) -> int:
        """N."""
        return self.columns["labels"].shape[0]

    @property
    def embed_dim(self) -> int:
        """D."""
        return self.columns["features"].shape[1]


def read_header(path: Path) -> Header:
    """Read and check the header of a cache file.

    Parameters
    ----------
    path : Path
        A ``.h5`` or ``.partial`` file.

    Returns
    -------
    Header
        Safe to map the file by.

    Raises
    ------
    CacheNotFoundError
        When there is no such file.
    CacheCorruptError
        When it is no cache of ours, or a damaged one.
    CacheMismatchError
        When a newer featcache wrote it.
    """
    if not path.is_file():
        raise CacheNotFoundError(
            f"no cache {shown(path)}; make one with 'featcache extract'"
        )
    try:
        length = path.stat().st_size
        if not h5py.is_hdf5(path):
            raise CacheCorruptError(f"{shown(path)} is not an HDF5 file")
        with h5py.File(path, "r", locking=False) as file:
            return _read(file, path, length)
    except PermissionError as error:
        raise StorageError(f"cannot read {shown(path)}: {error.strerror}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, (CacheCorruptError, CacheMismatchError)):
            raise
        reason = str(error).split("\n", 1)[0]
        raise CacheCorruptError(
            f"{shown(path)} is damaged ({reason}); delete it and extract again"
        ) from error


def _read(file: h5py.File, path: Path, length: int) -> Header:
    if "format" not in file.attrs or _text(file, "format") != FORMAT:
        raise CacheCorruptError(
            f"{shown(path)} is an HDF5 file, but not a featcache cache"
        )
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise CacheMismatchError(
            f"{shown(path)} has format version {version}, this featcache reads up to "
            f"{FORMAT_VERSION}; upgrade featcache"
        )
    columns = {name: _column(file, name, length) for name in _MANIFEST_KINDS}
    n, block_rows = columns["labels"].shape[0], int(file.attrs["block_rows"])
    spec = _spec(file, path)
    expected = data_columns(n, BACKBONES[spec.backbone].embed_dim, spec.dtype)
    columns |= {name: _column(file, name, length) for name in expected}
    _check_shapes(columns, expected, n)
    return Header(
        path=path,
        spec=spec,
        provenance=json.loads(_text(file, "provenance")),
        manifest_sha256=_text(file, "manifest_sha256"),
        block_rows=block_rows,
        columns=columns,
        length=length,
    )


def _text(file: h5py.File, name: str) -> str:
    attribute = file.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.kind != "S":
        raise CacheCorruptError(f"attribute {name} is not a text")
    if attribute.dtype.itemsize > _LONGEST_ATTRIBUTE:
        raise CacheCorruptError(f"attribute {name} is too long")
    return bytes(file.attrs[name]).decode()


def _spec(file: h5py.File, path: Path) -> FeatureSpec:
    try:
        fields = json.loads(_text(file, "spec"))
        spec = FeatureSpec.from_json(fields)
    except SpecError as error:
        raise CacheCorruptError(f"{shown(path)}: {error}") from error
    if spec.fingerprint != _text(file, "fingerprint"):
        raise CacheCorruptError(
            f"{shown(path)} is damaged: its spec does not match its fingerprint"
        )
    if spec.backbone not in BACKBONES:
        raise CacheMismatchError(
            f"{shown(path)} was made with backbone {spec.backbone!r}, which this "
            "featcache does not know; upgrade featcache"
        )
    return spec


def _column(file: h5py.File, name: str, length: int) -> Column:
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise CacheCorruptError(f"{name} is a {type(link).__name__}, not a dataset")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise CacheCorruptError(f"{name} is not a dataset")
    plist = dataset.id.get_create_plist()
    offset = dataset.id.get_offset()
    plain = plist.get_layout() == h5py.h5d.CONTIGUOUS and plist.get_nfilters() == 0
    if not plain or plist.get_external_count() or offset is None:
        raise CacheCorruptError(f"{name} does not lie in the file as plain bytes")
    if dataset.dtype.hasobject:
        raise CacheCorruptError(f"{name} holds values of variable length")
    column = Column(offset, dataset.dtype, dataset.shape)
    if column.offset + column.nbytes > length:
        raise CacheCorruptError(
            f"{name} ends at byte {column.offset + column.nbytes:,} "
            f"but the file has {length:,}: it was cut off"
        )
    return column


def _check_shapes(
    columns: Mapping[str, Column],
    expected: Mapping[str, tuple[tuple[int, ...], str]],
    n: int,
) -> None:
    for name, kind in _MANIFEST_KINDS.items():
        column = columns[name]
        fits = column.dtype.kind == "S" if kind == "S" else column.dtype.str == kind
        rows_fit = len(column.shape) == 1 and (
            name == "classes" or column.shape[0] == n
        )
        if not (fits and rows_fit and n > 0 and column.shape[0] > 0):
            raise CacheCorruptError(f"{name} has dtype {column.dtype}, {column.shape}")
    for name, (shape, kind) in expected.items():
        column = columns[name]
        if column.shape != shape or column.dtype != np.dtype(kind):
            raise CacheCorruptError(
                f"{name} is {column.dtype} {column.shape}, expected {kind} {shape}"
            )
