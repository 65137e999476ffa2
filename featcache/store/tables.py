"""Files that other programs read: features as a npy folder, Parquet or CSV.

Each is written piece by piece, so that memory stays bounded whatever the cache holds.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.core.libraries import optional
from featcache.core.manifest import SPLITS
from featcache.store.files import replacing, replacing_folder
from featcache.store.frames import Frame, arrow_table, feature_names

FORMAT = "featcache-export"
_META = "meta.json"
# What reads back as the same number: 9 digits of a float32, 5 of a float16.
_DIGITS = {"float32": 9, "float16": 5}


@dataclass(frozen=True, eq=False)
class Rows:
    """What an export holds, as pieces that fit into memory.

    Parameters
    ----------
    pieces : iterable of Frame
        In order; the rows of all of them are the export.
    count : int
        n, the rows of all pieces.
    embed_dim : int
        D.
    dtype : str
        Of the features: ``float32`` or ``float16``.
    meta : mapping
        JSON data that says what the rows are.
    """

    pieces: Iterable[Frame]
    count: int
    embed_dim: int
    dtype: str
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """One kind of file: what its name ends with, and how it is written."""

    ending: str
    write: Callable[[Rows, Path], None]  # whole or not at all, replacing what is there
    library: str = ""  # that it needs beside those that are always there
    is_folder: bool = False


def is_export(folder: Path) -> bool:
    """Tell whether a folder is one that `featcache export` made.

    Parameters
    ----------
    folder : Path
        Any path.

    Returns
    -------
    bool
        True when it has our ``meta.json``: it may be replaced as a whole.
    """
    try:
        meta = json.loads((folder / _META).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("format") == FORMAT


def _write_npy(rows: Rows, path: Path) -> None:
    """Write ``X.npy``, ``y.npy``, ``splits.npy``, ``paths.txt`` and ``meta.json``."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "X.npy": (rows.dtype, (rows.count, rows.embed_dim)),
        "y.npy": ("int32", (rows.count,)),
        "splits.npy": ("uint8", (rows.count,)),
    }
    with replacing_folder(path) as folder:
        with ExitStack() as stack:
            names = stack.enter_context(_text(folder / "paths.txt"))
            files = {}
            for name, (dtype, shape) in shapes.items():
                file = files[name] = stack.enter_context((folder / name).open("wb"))
                # Not np.lib.format.open_memmap: a full disk would be a SIGBUS.
                descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            for piece in rows.pieces:
                columns = (piece.X, piece.labels, piece.splits)
                for file, values in zip(files.values(), columns, strict=True):
                    file.write(np.ascontiguousarray(values).view(np.uint8).data)
                names.writelines(f"{name}\n" for name in piece.names)
        text = json.dumps({"format": FORMAT, "version": 1, **rows.meta}, indent=2)
        (folder / _META).write_text(text + "\n", "utf-8")


def _write_parquet(rows: Rows, path: Path) -> None:
    """Write one row group a piece; features are a fixed-size list column."""
    parquet = optional("pyarrow.parquet", "Parquet", extra="export")
    meta = {"featcache": json.dumps({"format": FORMAT, "version": 1, **rows.meta})}
    pieces = iter(rows.pieces)
    with replacing(path) as temporary:
        first = arrow_table(next(pieces))
        schema = first.schema.with_metadata(meta)
        names = ["split", "class_name"]
        with parquet.ParquetWriter(temporary, schema, use_dictionary=names) as writer:
            writer.write_table(first.cast(schema))
            del first
            for piece in pieces:
                writer.write_table(arrow_table(piece).cast(schema))


def _write_csv(rows: Rows, path: Path) -> None:
    """Write a header and one line a row; the numbers read back as they were."""
    number = f"%.{_DIGITS[rows.dtype]}g"
    line = ",".join([number] * rows.embed_dim) + "\n"
    header = ["path", "split", "label", "class_name"]
    with replacing(path) as temporary, _text(temporary) as file:
        # csv quotes the words; one template is ten times as fast for the numbers.
        words = csv.writer(file, lineterminator=",")
        words.writerow(header)
        file.write(",".join(feature_names(rows.embed_dim)) + "\n")
        for piece in rows.pieces:
            for told, feature in zip(_words(piece), piece.X, strict=True):
                words.writerow(told)
                file.write(line % tuple(feature.tolist()))


def _words(piece: Frame) -> Iterable[tuple[str, str, int, str]]:
    classes = piece.class_names
    codes = zip(piece.splits.tolist(), piece.labels.tolist(), strict=True)
    for name, (split, label) in zip(piece.names, codes, strict=True):
        yield name, SPLITS[split], label, classes[label]


def _text(path: Path) -> Any:  # noqa: ANN401 - a text file
    return path.open("w", encoding="utf-8", newline="")


FORMATS: Mapping[str, Format] = {
    "npy": Format("-npy", _write_npy, is_folder=True),
    "parquet": Format(".parquet", _write_parquet, library="pyarrow"),
    "csv": Format(".csv", _write_csv),
}
