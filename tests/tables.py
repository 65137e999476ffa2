"""Parquet and Arrow files of a folder's images, for the tests of sources."""

import json
from pathlib import Path

CLASSES = ["ants", "bees"]
_FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": CLASSES, "_type": "ClassLabel"},
}
HUGGING_FACE = {"huggingface": json.dumps({"info": {"features": _FEATURES}})}


def table_of(folder: Path, *, hugging_face: bool = False):
    """Return one row for each image below FOLDER/class/, in the scan's order."""
    import pyarrow as pa

    files = sorted(folder.rglob("*.*"))
    data, labels = [f.read_bytes() for f in files], [f.parent.name for f in files]
    if not hugging_face:
        return pa.table({"image": data, "label": labels})
    numbers = [CLASSES.index(label) for label in labels]
    images = [{"bytes": d, "path": None} for d in data]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, kind), "label": numbers})
    return table.replace_schema_metadata(HUGGING_FACE)


def write_parquet(folder: Path, path: Path, rows: int = 3, **how) -> Path:
    """Write the images of FOLDER/class/ in groups of so many rows."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(folder, **how), path, row_group_size=rows)
    return path


def write_arrow(folder: Path, path: Path, rows: int = 3, *, feather=False) -> Path:
    """Write them as an Arrow stream, or as a Feather file, compressed."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    table = table_of(folder, hugging_face=True)
    options = pa.ipc.IpcWriteOptions(compression="zstd" if feather else None)
    new = pa.ipc.new_file if feather else pa.ipc.new_stream
    with new(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path
