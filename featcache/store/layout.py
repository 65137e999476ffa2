"""The layout of a cache file: plain HDF5, allocated whole, written by offset.

The HDF5 library only ever composes the file's headers, in memory; every byte on the
disk is written by `os.pwrite`. (An HDF5 library that writes to a full disk or is
killed leaves files that cannot be opened, or that open with wrong rows.)
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featcache.core.blocks import block_rows
from featcache.core.digests import array_digest
from featcache.core.fingerprint import canonical_json
from featcache.core.specs import FORMAT_VERSION, FeatureSpec

FORMAT = "featcache"
ALIGNMENT = 4096  # bytes; features start on a page
DIGEST = 32  # bytes of a sha256

_PAGE = 4096


@dataclass(frozen=True)
class Column:
    """Where one dataset lies in the file."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    def row_offset(self, row: int) -> int:
        """Return the position of a row in the file.

        Parameters
        ----------
        row : int
            First index of the dataset.

        Returns
        -------
        int
            Bytes from the start of the file.
        """
        width = self.dtype.itemsize * math.prod(self.shape[1:])
        return self.offset + row * width


@dataclass(frozen=True)
class Skeleton:
    """A cache file without its rows: the bytes that HDF5 composed, and the columns."""

    pages: Mapping[int, bytes]  # position -> header bytes
    columns: Mapping[str, Column]
    length: int  # bytes of the whole file


def data_columns(
    n: int, row_shape: tuple[int, ...], dtype: str, block_rows: int
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of the datasets that extraction fills.

    Parameters
    ----------
    n : int
        N rows.
    row_shape : tuple of int
        Of a row's features: ``(D,)`` or ``(V, D)``.
    dtype : str
        Of the features.
    block_rows : int
        Rows of a block.

    Returns
    -------
    dict of str to (shape, dtype)
        By dataset name; the journal has one row for each block.
    """
    return {
        "digests": ((n, DIGEST), "u1"),
        "status": ((n,), "u1"),
        "journal": ((-(-n // block_rows), DIGEST), "u1"),
        "features": ((n, *row_shape), np.dtype(dtype).newbyteorder("<").str),
    }


def compose(
    spec: FeatureSpec,
    manifest: Mapping[str, npt.NDArray[Any]],
    embed_dim: int,
    provenance: Mapping[str, Any],
) -> Skeleton:
    """Compose the headers of a cache file in memory.

    Parameters
    ----------
    spec : FeatureSpec
        Identity of the features.
    manifest : mapping of str to ndarray
        As `featcache.core.manifest.Manifest.columns` gives it.
    embed_dim : int
        D.
    provenance : mapping
        What is recorded beside the identity; JSON data.

    Returns
    -------
    Skeleton
        Equal for equal arguments, byte for byte.
    """
    n = len(manifest["labels"])
    sparse = _SparseFile()
    shapes = {k: (a.shape, a.dtype.str) for k, a in manifest.items()}
    row_shape = spec.row_shape(embed_dim)
    row_bytes = math.prod(row_shape) * np.dtype(spec.dtype).itemsize
    rows = block_rows(n, row_bytes)
    shapes |= data_columns(n, row_shape, spec.dtype, rows)
    threshold = min(ALIGNMENT, n * row_bytes)  # what is as large as they are is aligned
    with h5py.File(
        sparse,
        "w",
        libver="earliest",  # headers before rows, and no time of making in them
        alignment_threshold=threshold,
        alignment_interval=ALIGNMENT,
    ) as file:
        _write_attributes(file, spec, manifest, provenance)
        file.attrs.create("block_rows", rows, dtype="i4")
        columns = {k: _declare(file, k, *v) for k, v in shapes.items()}
        file.flush()
    length = max(sparse.length, *(c.offset + c.nbytes for c in columns.values()))
    return Skeleton(sparse.pages(), columns, length)


def _write_attributes(
    file: h5py.File,
    spec: FeatureSpec,
    manifest: Mapping[str, npt.NDArray[Any]],
    provenance: Mapping[str, Any],
) -> None:
    made = json.dumps(provenance, sort_keys=True)
    texts = {
        "format": FORMAT,
        "fingerprint": spec.fingerprint,
        "spec": canonical_json(spec.to_json()),
        "provenance": made,
        "provenance_sha256": hashlib.sha256(made.encode()).hexdigest(),
        "manifest_sha256": manifest_digest(manifest),
    }
    for name, text in texts.items():
        data = text.encode()
        kind = h5py.string_dtype("utf-8", len(data))
        file.attrs.create(name, np.array(data, kind), dtype=kind)
    file.attrs.create("format_version", FORMAT_VERSION, dtype="i4")


def manifest_digest(manifest: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return one sha256 over a manifest's columns.

    Parameters
    ----------
    manifest : mapping of str to ndarray
        By dataset name.

    Returns
    -------
    str
        64 hex digits.
    """
    return array_digest(*(manifest[name] for name in sorted(manifest))).hex()


def _declare(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> Column:
    """Add a contiguous dataset whose space is set aside but not written."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    kind = np.dtype(dtype)
    stored = h5py.string_dtype("utf-8", kind.itemsize) if kind.kind == "S" else kind
    space = h5py.h5s.create_simple(shape)
    typed = h5py.h5t.py_create(stored, logical=True)
    dataset = h5py.h5d.create(file.id, name.encode(), typed, space, dcpl=plist)
    return Column(dataset.get_offset(), kind, shape)


class _SparseFile(io.RawIOBase):
    """A file in memory that keeps only the pages somebody wrote to."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self.length = 0

    def pages(self) -> dict[int, bytes]:
        """Position and bytes of each written page, cut at the file's end."""
        return {
            number * _PAGE: bytes(page[: self.length - number * _PAGE])
            for number, page in sorted(self._pages.items())
            if number * _PAGE < self.length
        }

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self.length)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.length = self._position if size is None else size
        for number, page in self._pages.items():  # what is cut off reads as zeros
            kept = max(0, self.length - number * _PAGE)
            page[kept:] = bytes(len(page[kept:]))
        return self.length

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - typeshed's Buffer is 3.12
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.length - self._position))
        for at, number, start, size in self._spans(count):
            page = self._pages.get(number, bytes(_PAGE))
            view[at : at + size] = page[start : start + size]
        self._position += count
        return count

    def write(self, data: Any) -> int:  # noqa: ANN401
        view = memoryview(data).cast("B")
        for at, number, start, size in self._spans(len(view)):
            page = self._pages.setdefault(number, bytearray(_PAGE))
            page[start : start + size] = view[at : at + size]
        self._position += len(view)
        if view:
            self.length = max(self.length, self._position)
        return len(view)

    def _spans(self, count: int) -> list[tuple[int, int, int, int]]:
        spans, at = [], 0
        while at < count:
            number, start = divmod(self._position + at, _PAGE)
            size = min(_PAGE - start, count - at)
            spans.append((at, number, start, size))
            at += size
        return spans
