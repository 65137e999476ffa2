"""Reading a cache's header: a file from elsewhere is hostile until checked.

Only datasets that lie in the file itself, contiguous and unfiltered, within the
file's length, of the expected dtype and shape, are ever looked at.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from featcache.core.catalog import BACKBONES
from featcache.core.errors import (
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    CacheNotFoundError,
    StorageError,
)
from featcache.core.shards import ShardRecord
from featcache.core.specs import FORMAT_VERSION, FeatureSpec
from featcache.core.text import shown
from featcache.store.layout import FORMAT, Column, data_columns

_MANIFEST_KINDS = {
    "labels": "<i4",  # first: the others are as long as it is
    "classes": "S",
    "paths": "S",
    "splits": "|u1",
    "sizes": "<i8",
    "mtimes_ns": "<i8",
}
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_ATTRIBUTE = 1 << 16  # bytes
_LONGEST_REASON = 200  # characters


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
        return self.columns["features"].shape[-1]


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
    StorageError
        When it cannot be read.
    """
    with open_file(path) as file:
        return header_of(file, path)


def open_file(path: Path) -> BinaryIO:
    """Open a cache file for reading.

    Parameters
    ----------
    path : Path
        A ``.h5`` or ``.partial`` file.

    Returns
    -------
    binary file
        To be closed by the caller.

    Raises
    ------
    CacheNotFoundError
        When there is no such file.
    StorageError
        When it cannot be read.
    """
    try:
        if path.is_dir():
            raise CacheNotFoundError(
                f"{shown(path)} is a folder; a cache is one file in it, NAME.h5"
            )
        if not path.is_file():
            raise CacheNotFoundError(
                f"no cache {shown(path)}; make one with 'featcache extract'"
            )
        return path.open("rb")
    except CacheNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {shown(path)}: {error.strerror}") from error


def header_of(file: BinaryIO, path: Path) -> Header:
    """Read and check the header of an opened cache file.

    Parameters
    ----------
    file : binary file
        As `open_file` gives it: the header that is read and the rows that are mapped
        are those of one file, even while its name goes to another.
    path : Path
        Its name, for messages.

    Returns
    -------
    Header
        Safe to map the file by.

    Raises
    ------
    CacheCorruptError
        When it is no cache of ours, or a damaged one.
    CacheMismatchError
        When a newer featcache wrote it.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise CacheCorruptError(f"{shown(path)} is not an HDF5 file")
    try:
        with h5py.File(file, "r") as opened:
            return _read(opened, path, os.fstat(file.fileno()).st_size)
    except CacheError:
        raise
    except Exception as error:  # whatever HDF5 makes of hostile bytes
        reason = shown(str(error).split("\n", 1)[0])[:_LONGEST_REASON]
        raise CacheCorruptError(
            f"{shown(path)} is damaged ({reason}); delete it and run "
            "'featcache extract' again"
        ) from error


def _read(file: h5py.File, path: Path, length: int) -> Header:
    if not _is_ours(file):
        raise CacheCorruptError(
            f"{shown(path)} is an HDF5 file, but not a featcache cache"
        )
    version = _number(file, "format_version")
    if version > FORMAT_VERSION:
        raise CacheMismatchError(
            f"{shown(path)} has format version {version}, this featcache reads up to "
            f"{FORMAT_VERSION}; upgrade featcache"
        )
    spec = FeatureSpec.from_json(json.loads(_text(file, "spec")))
    if spec.fingerprint != _text(file, "fingerprint"):
        raise ValueError("its spec does not match its fingerprint")
    if spec.backbone not in BACKBONES:
        raise CacheMismatchError(
            f"{shown(path)} was made with backbone {spec.backbone!r}, which this "
            "featcache does not know; upgrade featcache"
        )
    block_rows = _number(file, "block_rows")
    return Header(
        path=path,
        spec=spec,
        provenance=_provenance(file),
        manifest_sha256=_text(file, "manifest_sha256"),
        block_rows=block_rows,
        columns=_columns(file, spec, block_rows, length),
        length=length,
    )


def _is_ours(file: h5py.File) -> bool:
    try:
        return _text(file, "format") == FORMAT
    except (KeyError, TypeError, ValueError):  # none, or one of another kind
        return False


def _text(file: h5py.File, name: str) -> str:
    attribute = file.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.kind != "S":
        raise ValueError(f"attribute {name} is not a text")
    if attribute.dtype.itemsize > _LONGEST_ATTRIBUTE:
        raise ValueError(f"attribute {name} is too long")
    return bytes(file.attrs[name]).decode()


def _number(file: h5py.File, name: str) -> int:
    attribute = file.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.kind not in "iu":
        raise ValueError(f"attribute {name} is not a whole number")
    value = int(file.attrs[name])
    if value < 1:
        raise ValueError(f"attribute {name} is {value}")
    return value


def _provenance(file: h5py.File) -> Mapping[str, Any]:
    """Return the provenance; what other code reads of it has the type it expects."""
    text = _text(file, "provenance")
    if hashlib.sha256(text.encode()).hexdigest() != _text(file, "provenance_sha256"):
        raise ValueError("its provenance does not match its digest")
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("its provenance is no JSON object")
    for name, kind in {"began_ns": int, "weights": dict}.items():
        if not isinstance(fields.get(name, kind()), kind):
            raise TypeError(f"{name} of its provenance is {fields[name]!r}")
    ShardRecord.read(fields)  # raises where it is none
    return fields


def _columns(
    file: h5py.File, spec: FeatureSpec, block_rows: int, length: int
) -> dict[str, Column]:
    columns = {name: _column(file, name, length) for name in _MANIFEST_KINDS}
    shape = columns["labels"].shape
    for name, kind in _MANIFEST_KINDS.items():
        column = columns[name]
        fits = column.dtype.kind == "S" if kind == "S" else column.dtype.str == kind
        rows_fit = name == "classes" or column.shape == shape
        if not (fits and rows_fit and len(column.shape) == 1):
            raise ValueError(f"{name} is {column.dtype} {column.shape}")
    row_shape = spec.row_shape(spec.embed_dim)
    expected = data_columns(shape[0], row_shape, spec.dtype, block_rows)
    for name, (wanted, kind) in expected.items():
        column = columns[name] = _column(file, name, length)
        if column.shape != wanted or column.dtype != np.dtype(kind):
            raise ValueError(
                f"{name} is {column.dtype} {column.shape}, expected {kind} {wanted}"
            )
    return columns


def _column(file: h5py.File, name: str, length: int) -> Column:
    link = file.get(name, getlink=True)
    if link is None:
        raise ValueError(f"there is no {name}")
    if not isinstance(link, h5py.HardLink):
        raise TypeError(f"{name} is a {type(link).__name__}, not a dataset")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{name} is not a dataset")
    plist = dataset.id.get_create_plist()
    plain = plist.get_layout() == h5py.h5d.CONTIGUOUS and plist.get_nfilters() == 0
    offset = dataset.id.get_offset()  # None where nothing is stored
    if not plain or plist.get_external_count() or offset is None:
        raise ValueError(f"{name} does not lie in the file as plain bytes")
    if dataset.dtype.hasobject:
        raise TypeError(f"{name} holds values of variable length")
    column = Column(offset, dataset.dtype, dataset.shape)
    if column.offset + column.nbytes > length:
        raise ValueError(
            f"{name} ends at byte {column.offset + column.nbytes:,} "
            f"but the file has {length:,}: it was cut off"
        )
    return column
