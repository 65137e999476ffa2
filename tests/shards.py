"""Tar shards and lists made of a folder of images, for the tests of sources."""

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SOURCES = ("list", "shards")


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member with these bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make_tar(path: Path, members: Iterable[tuple[str, bytes]], **how) -> Path:
    """Write a tar of members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def samples(folder: Path, *, as_json: bool = False) -> list[tuple[str, bytes]]:
    """Return image and label of each file below FOLDER/class/, in the scan's order."""
    found = []
    for path in sorted(folder.rglob("*.*"), key=os.fsencode):
        name = path.relative_to(folder).as_posix()
        label = path.parent.name
        found.append((name, path.read_bytes()))
        key = name.rpartition(".")[0]
        if as_json:
            found.append((key + ".json", json.dumps({"label": label}).encode()))
        else:
            found.append((key + ".cls", label.encode()))
    return found


def as_source(folder: Path, kind: str) -> Path:
    """Return FOLDER/train itself, or a list or shards of its images beside it."""
    if kind == "folder":
        return folder
    if kind == "shards":
        out = folder.with_name(f"{folder.name}-shards")
        members = samples(folder / "train")
        for number in range(3):
            part = [
                members[i + at]
                for i in range(2 * number, len(members), 6)
                for at in (0, 1)
                if i + at < len(members)
            ]
            make_tar(out / f"{number}.tar", part)
        return out
    out = folder.with_name(f"{folder.name}.csv")
    files = sorted((folder / "train").rglob("*.*"))
    lines = [f"{path},{path.parent.name}" for path in files]
    out.write_text("\n".join(["path,label", *lines]))
    return out


def shard(photos: Path, out: Path, split: str, count: int = 2) -> None:
    """Write the images of a split into OUT/split-N.tar, in the scan's order."""
    pairs = np.array_split(np.arange(len(samples(photos / split)) // 2), count)
    all_ = samples(photos / split, as_json=split == "val")
    for number, rows in enumerate(pairs):
        members = [all_[2 * row + at] for row in rows.tolist() for at in (0, 1)]
        make_tar(out / f"{split}-{number:03d}.tar", members)


def age(path: Path, seconds: int = 3600) -> None:
    """Make a file look old enough to be trusted by its time."""
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))
