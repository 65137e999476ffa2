"""Folders of images to scan, made of empty files, and a disk that misbehaves."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from featcache.core.manifest import SPLITS, Manifest

TWO = ("ants/a.jpg", "bees/b.jpg")
SPLIT = ("train/ants/a.jpg", "train/bees/b.jpg", "val/ants/v.jpg")

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
any_bytes = pytest.mark.skipif(sys.platform != "linux", reason="names must be Unicode")


def tree(root: Path, *names: str | bytes) -> Path:
    """Make empty files, and folders for names that end with a slash."""
    for name in map(os.fsdecode, names):
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def link(path: Path, target: str) -> None:
    """Make a symbolic link, with the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def rows(manifest: Manifest) -> list[str]:
    """Return 'split class path' of each row."""
    columns = zip(manifest.splits, manifest.labels, manifest.paths, strict=True)
    return [
        f"{SPLITS[s]} {manifest.classes[c]} {os.fsdecode(p)}" for s, c, p in columns
    ]


def paths(manifest: Manifest) -> list[str]:
    """Return the paths, in alphabetical order whatever their split."""
    return sorted(os.fsdecode(path) for path in manifest.paths)


class FakeScandir:
    """os.scandir that does something to each folder before it is listed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = os.scandir
        monkeypatch.setattr(os, "scandir", self)

    def __call__(
        self, folder: bytes
    ) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[bytes]]]:
        """Return what os.scandir would, changed."""
        with self._real(folder) as entries:
            return contextlib.nullcontext(iter(self.changed(folder, list(entries))))

    def changed(
        self, folder: bytes, entries: list[os.DirEntry[bytes]]
    ) -> Iterable[os.DirEntry[bytes]]:
        """Return the entries that are listed."""
        raise NotImplementedError
