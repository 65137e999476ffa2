"""Scanning: from a folder of labelled images to its manifest."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featcache.core.errors import DataError
from featcache.core.manifest import SPLITS, TRAIN, VAL, Manifest
from featcache.core.splits import hashed_splits
from featcache.core.text import listed, plural, shown
from featcache.vision.layout import Branch, find_branches
from featcache.vision.levels import EXPECTED, unsorted
from featcache.vision.listing import inside, unreadable
from featcache.vision.walk import Rows, folders_above, walk

Classes = dict[bytes, Rows]  # by name of the class folder, sorted


def scan(root: Path) -> Manifest:
    """Return the manifest of a folder of labelled images.

    The folder is ROOT/class/image.jpg or ROOT/split/class/image.jpg with splits called
    train, val (valid, validation) and test; nested folders belong to their class and
    links are followed. Classes come from train. Without a val split, about a fifth of
    train is held out by hash of the path. No file is opened: images are known by their
    extension, and an empty or broken one is the decoder's to report.

    Parameters
    ----------
    root : Path
        The data folder.

    Returns
    -------
    Manifest
        N samples ordered by split, class and path bytes. ``ignored`` counts all that
        was passed over, by kind: "hidden file", ".gif file", "dangling link",
        "repeated folder" (a link to one reached before), "unsorted image" (in no class
        folder), "empty class folder", "non-split folder" (beside train), ...

    Raises
    ------
    DataError
        When the folder is missing, unreadable, empty, at the wrong level, has no images
        or only one class, or when a split has a class that train has not.
    """
    top = os.fsencode(root)
    _require_folder(root)
    branches, ignored = find_branches(top)
    train = _read_classes(top, branches[TRAIN], ignored)
    if len(train) < 2:
        raise _too_few(top, branches[TRAIN], list(train), ignored)
    splits = {TRAIN: train}
    for number in sorted(branches.keys() - {TRAIN}):
        splits[number] = _read_classes(top, branches[number], ignored)
        _require_known(top, branches, number, splits)
    if not splits.get(VAL):
        splits[VAL] = _hold_out(train)
    return _assemble(root, splits, ignored)


def _require_folder(root: Path) -> None:
    try:
        status = root.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no folder {shown(root)}; {EXPECTED}") from None
    except OSError as error:
        raise unreadable(os.fsencode(root), error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"{shown(root)} is a file, not a folder; {EXPECTED}")


def _read_classes(root: bytes, branch: Branch, ignored: Counter[str]) -> Classes:
    ignored.update(branch.contents.ignored)
    ignored["unsorted image"] += branch.contents.images
    above = folders_above(inside(root, branch.folder))
    classes = {}
    for name in branch.contents.folders:
        rows = walk(root, inside(branch.folder, name), above, ignored)
        if len(rows):
            classes[name] = rows
        else:
            ignored["empty class folder"] += 1
    return classes


def _too_few(
    root: bytes, branch: Branch, classes: list[bytes], ignored: Counter[str]
) -> DataError:
    here = shown(inside(root, branch.folder))
    if branch.contents.images:
        return unsorted(root, branch.contents.images)
    if classes:
        return DataError(
            f"{here} has images of only one class, {shown(classes[0])}; "
            f"a classifier needs at least two: {EXPECTED}"
        )
    found = listed(plural(n, kind) for kind, n in sorted((+ignored).items()))
    return DataError(
        f"no image in the class folders of {here} (found: {found}); {EXPECTED}, "
        "ending in .jpg, .png, .bmp, .tif or .webp"
    )


def _require_known(
    root: bytes,
    branches: Mapping[int, Branch],
    number: int,
    splits: Mapping[int, Classes],
) -> None:
    known = splits[TRAIN]
    unknown = [name for name in splits[number] if name not in known]
    if not unknown:
        return
    here, train = (shown(inside(root, branches[n].folder)) for n in (number, TRAIN))
    empty = [name for name in unknown if name in branches[TRAIN].contents.folders]
    but = f" (no image there of: {listed(map(shown, empty))})" if empty else ""
    raise DataError(
        f"split {SPLITS[number]} has classes that train has not: "
        f"{listed(map(shown, unknown))}; train has: {listed(map(shown, known))}; "
        f"add images of them to {train}{but} or take their folders out of {here}"
    )


def _hold_out(train: Classes) -> Classes:
    held = {}
    for name, rows in train.items():
        splits = hashed_splits(rows.paths, np.zeros(len(rows), np.int32))
        train[name] = rows.take(splits == TRAIN)  # in place: one class in memory twice
        if (splits == VAL).any():
            held[name] = rows.take(splits == VAL)
    return held


def _assemble(
    root: Path, splits: Mapping[int, Classes], ignored: Counter[str]
) -> Manifest:
    label_of = {name: label for label, name in enumerate(splits[TRAIN])}
    parts = [
        (number, label_of[name], rows)
        for number, classes in sorted(splits.items())
        for name, rows in classes.items()
    ]
    numbers, labels, rows = zip(*parts, strict=True)
    lengths = [len(r) for r in rows]
    return Manifest(
        root=root,
        classes=tuple(os.fsdecode(name) for name in label_of),
        paths=np.concatenate([r.paths for r in rows]),
        labels=np.repeat(np.array(labels, np.int32), lengths),
        splits=np.repeat(np.array(numbers, np.uint8), lengths),
        sizes=np.concatenate([r.sizes for r in rows]),
        mtimes_ns=np.concatenate([r.mtimes_ns for r in rows]),
        ignored={kind: n for kind, n in sorted(ignored.items()) if n},
    )
