"""Levels: whether the data set's own folder was passed, or one above or below it.

Told from folders alone, stopping at the first image. Where another folder looks like
the one that was meant, the error names it.
"""

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from featcache.core.errors import DataError
from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.text import listed, plural, shown
from featcache.vision.listing import contents, holds_images, inside

EXPECTED = "expected ROOT/class/image.jpg or ROOT/train/class/image.jpg"

_SPLIT_NAMES = {
    b"train": TRAIN,
    b"val": VAL,
    b"valid": VAL,
    b"validation": VAL,
    b"test": TEST,
}
_DEPTH = 3  # how many single folders are gone down to find the data set
_SIBLINGS = 50  # how many folders beside root are looked into for a hint


def split_of(name: bytes) -> int | None:
    """Return the split that a folder name stands for.

    Parameters
    ----------
    name : bytes
        Name of a folder, in any case of letters.

    Returns
    -------
    int or None
        Number of the split; None for any other name.
    """
    return _SPLIT_NAMES.get(name.lower())


def refuse_split_folder(root: bytes) -> None:
    """Refuse a folder that is one split of a larger data set, by its name and place.

    Parameters
    ----------
    root : bytes
        The data folder.

    Raises
    ------
    DataError
        When it is called like a split and lies beside another split's folder.
    """
    here = _absolute(root)
    others = _other_splits(here)
    if others:
        raise DataError(
            f"{shown(root)} is one split of {shown(here.parent)}, which also holds "
            f"{listed(map(shown, others))}: pass {shown(here.parent)} "
            "(or a link by another name, if this split alone is meant)"
        )


def refuse_too_high(root: bytes, folders: list[bytes]) -> None:
    """Refuse a folder whose folders are not classes but data sets.

    Parameters
    ----------
    root : bytes
        The data folder.
    folders : list of bytes
        Names of the folders in it.

    Raises
    ------
    DataError
        When no folder holds an image directly, and one looks like a data set.
    """
    below = _data_sets_below(root, folders, _DEPTH)
    if not below:
        return
    if len(below) == 1:
        advice = f"{shown(below[0])} looks like a data set: pass that folder"
    else:
        advice = f"these look like data sets: {listed(map(shown, below))}; pass one"
    if len(folders) > 1:
        train = shown(inside(root, b"train"))
        advice += f" (or move all folders into {train}, if they are nested classes)"
    raise DataError(f"no folder of {shown(root)} holds images directly, but {advice}")


def unsorted(root: bytes, images: int) -> DataError:
    """Return the error of a folder that holds images instead of class folders.

    Parameters
    ----------
    root : bytes
        The data folder.
    images : int
        How many lie directly in it.

    Returns
    -------
    DataError
        One line with the folder to pass instead, where one can be told.
    """
    whole = _data_set_above(root)
    advice = (
        f"it looks like one class of {shown(whole)}: pass that folder"
        if whole
        else "sort the images into one folder per class"
    )
    return DataError(
        f"{shown(root)} holds {plural(images, 'image')} directly instead of class "
        f"folders; {EXPECTED}; {advice}"
    )


def _other_splits(here: Path) -> list[bytes]:
    own = split_of(os.fsencode(here.name))
    if own is None:
        return []
    with suppress(DataError):  # what lies beside the data may be unreadable
        return [
            name
            for name in _folders(here.parent)
            if split_of(name) not in (None, own)
            and contents(_join(here.parent, name)).holds_classes
        ]
    return []


def _data_sets_below(root: bytes, folders: list[bytes], depth: int) -> list[bytes]:
    paths = [inside(root, name) for name in folders]
    if any(holds_images(path) for path in paths):
        return []
    inner = {path: contents(path).folders for path in paths}
    sets = [path for path, names in inner.items() if _is_data_set(path, names)]
    if sets or len(paths) != 1 or not depth:
        return sets
    return _data_sets_below(paths[0], inner[paths[0]], depth - 1)


def _is_data_set(folder: bytes, names: list[bytes]) -> bool:
    paths = [inside(folder, name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if split_of(name) == TRAIN and contents(path).holds_classes:
            return True
    return len(list(islice(filter(holds_images, paths), 2))) == 2


def _data_set_above(root: bytes) -> Path | None:
    here = _absolute(root)
    if split_of(os.fsencode(here.name)) is not None:
        return None
    with suppress(DataError):  # what lies beside the data may be unreadable
        if not _has_image_folders(here.parent, besides=os.fsencode(here.name)):
            return None
        # The parent may itself be a split, of a data set one level further up.
        in_split = split_of(os.fsencode(here.parent.name)) is not None
        above = here.parent.parent
        if in_split and any(split_of(n) == TRAIN for n in _folders(above)):
            return above
        return here.parent
    return None


def _has_image_folders(folder: Path, besides: bytes) -> bool:
    names = [name for name in _folders(folder) if name != besides]
    return any(holds_images(_join(folder, name)) for name in names[:_SIBLINGS])


def _folders(folder: Path) -> list[bytes]:
    return contents(os.fsencode(folder)).folders


def _absolute(root: bytes) -> Path:
    # Not resolved: a link by another name is how one split alone can be passed.
    return Path(os.path.abspath(os.fsdecode(root)))  # noqa: PTH100


def _join(folder: Path, name: bytes) -> bytes:
    return inside(os.fsencode(folder), name)
