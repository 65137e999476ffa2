"""Layout: where below a data folder the class folders lie, or what to pass instead.

Two layouts are known: ROOT/class/image.jpg, and ROOT/split/class/image.jpg for splits
called train, val (valid, validation) and test. Class folders may be nested. Whether
the right level was passed is told from folders alone, stopping at the first image:

* Split folders count when ``train`` holds folders and no image directly. A folder
  that happens to be called train and holds images is a class like any other.
* Half of that is refused: val or test with class folders but no such train, images
  beside train's class folders, or nothing but split folders full of images.
* Without splits, one folder with an image directly in it makes all of root's folders
  classes, however nested the others are.
* If none has, and one of them holds ``train`` or two folders with images, then that
  one is a data set and root is one level too high. Classes whose images are all
  nested two folders wide look the same; below a ``train`` folder they are accepted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from featcache.core.errors import DataError
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.text import listed, plural, shown
from featcache.vision.levels import (
    EXPECTED,
    refuse_split_folder,
    refuse_too_high,
    split_of,
)
from featcache.vision.listing import Contents, contents, inside


@dataclass(frozen=True)
class Branch:
    """A folder that holds class folders."""

    folder: bytes  # relative to root; empty: root itself
    contents: Contents


def find_branches(root: bytes) -> tuple[dict[int, Branch], Counter[str]]:
    """Return where the class folders of each split lie.

    Parameters
    ----------
    root : bytes
        The data folder.

    Returns
    -------
    branches : dict of int to Branch
        By split number; root itself as `TRAIN` where there are no split folders.
    ignored : Counter
        What lies beside the split folders, by kind.

    Raises
    ------
    DataError
        When root is empty, unreadable, at the wrong level or its splits make no sense.
    """
    top = contents(root)
    if not (top.folders or top.images or top.ignored):
        raise DataError(f"{shown(root)} is empty; {EXPECTED}")
    if top.holds_classes:
        refuse_split_folder(root)
    named = {
        name: contents(inside(root, name))
        for name in top.folders
        if split_of(name) is not None
    }
    if any(split_of(n) == TRAIN and c.holds_classes for n, c in named.items()):
        return _split_branches(root, named), _beside(top, len(named))
    _refuse_half_splits(root, top.folders, named)
    refuse_too_high(root, top.folders)
    return {TRAIN: Branch(b"", top)}, Counter()


def _split_branches(root: bytes, named: Mapping[bytes, Contents]) -> dict[int, Branch]:
    branches: dict[int, Branch] = {}
    for name, found in named.items():
        number = split_of(name)
        assert number is not None
        if number in branches:
            first = shown(branches[number].folder)
            raise DataError(
                f"{shown(root)} holds both {first} and {shown(name)}, which mean the "
                f"same split ({SPLITS[number]}); merge them or move one elsewhere"
            )
        branches[number] = Branch(name, found)
    return branches


def _beside(top: Contents, splits: int) -> Counter[str]:
    ignored = Counter(top.ignored)
    ignored["unsorted image"] += top.images
    ignored["non-split folder"] += len(top.folders) - splits
    return ignored


def _refuse_half_splits(
    root: bytes, folders: list[bytes], named: Mapping[bytes, Contents]
) -> None:
    train = next((name for name in named if split_of(name) == TRAIN), None)
    splits = [name for name, found in named.items() if found.holds_classes]
    # Beside plain classes such a train is one of them, with nested folders.
    if train is not None and (splits or folders == [train]):
        _refuse_unsorted_images(inside(root, train), named[train])
    if splits:
        missing = "is missing" if train is None else "holds no class folders"
        raise DataError(
            f"{shown(root)} has split folders ({listed(map(shown, splits))}) but train "
            f"{missing}; expected ROOT/train/class/image.jpg, from which the classes "
            "are taken"
        )
    if len(named) == len(folders) and any(found.images for found in named.values()):
        raise DataError(
            f"{shown(root)}: {listed(map(shown, named))} hold images directly where "
            "class folders were expected; sort the images of each split by class: "
            "ROOT/train/class/image.jpg"
        )


def _refuse_unsorted_images(train: bytes, found: Contents) -> None:
    if found.images and found.folders:
        raise DataError(
            f"{shown(train)} holds {plural(found.images, 'image')} beside its class "
            "folders; move each into a class folder or out of the data"
        )
