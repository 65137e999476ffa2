"""Image files that a user names: one by one, as patterns, or by their folder."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from featcache.core.errors import DataError
from featcache.core.predictions import ImageFile
from featcache.core.progress import Progress
from featcache.core.text import listed, plural, shown
from featcache.vision.walk import walk

_HDF5 = b"\x89HDF\r\n\x1a\n"

Place = str | os.PathLike[str]


def list_images(images: Iterable[Place], progress: Progress) -> list[ImageFile]:
    """Return the image files named, those of folders in the order of their paths.

    Parameters
    ----------
    images : iterable of str or path
        Files; folders, which are searched for images; patterns such as
        ``photos/**/*.jpg``, which stand for what they match.
    progress : Progress
        Hears what is passed over in folders.

    Returns
    -------
    list of ImageFile
        In the order given; no image is opened.

    Raises
    ------
    DataError
        When a path is not there, is a cache, or a folder holds no image.
    """
    found = [file for given in images for file in _list(os.fspath(given), progress)]
    if not found:
        raise DataError("no image was given")
    return found


def _list(given: str, progress: Progress) -> Iterator[ImageFile]:
    path = Path(given)
    if path.is_dir():
        ignored: Counter[str] = Counter()
        files = list(list_folder(path, ignored))
        if ignored:
            others = listed(plural(n, kind) for kind, n in ignored.items())
            progress.say(f"{shown(path)}: ignored {others}")
        if not files:
            raise DataError(f"{shown(path)} holds no image")
        yield from files
    elif path.exists():
        yield _named(path)
    elif glob.has_magic(given):
        matches = sorted(glob.iglob(given, recursive=True))  # noqa: PTH207 - any root
        if not matches:
            raise DataError(f"no file matches {shown(given)}")
        for match in matches:
            # A ** matches folders as well as what is in them.
            yield from [] if _repeats(given, match) else _list(match, progress)
    else:
        raise DataError(f"no image or folder {shown(path)}")


def _repeats(pattern: str, match: str) -> bool:
    return "**" in pattern and Path(match).is_dir()


def _named(path: Path) -> ImageFile:
    beginning = b""
    with suppress(OSError):  # what cannot be read is a bad image, not an error
        if path.is_file():  # a pipe is not read here
            with path.open("rb") as file:
                beginning = file.read(len(_HDF5))
    if beginning == _HDF5:
        raise DataError(
            f"{shown(path)} is an HDF5 file, such as a cache of features, and no "
            "image; name images or folders, or measure a model on a cache with "
            f"'featcache evaluate MODEL {shown(path)}'"
        )
    status = path.stat()
    return ImageFile(os.fspath(path), status.st_size, status.st_mtime_ns)


def list_folder(folder: Path, ignored: Counter[str]) -> Iterator[ImageFile]:
    """Yield every image below a folder, in the order of the paths.

    Parameters
    ----------
    folder : Path
        Searched with all folders below it.
    ignored : Counter
        What is passed over is counted here by kind.

    Yields
    ------
    ImageFile
        No image is opened.

    Raises
    ------
    DataError
        When a folder cannot be read.
    """
    rows = walk(os.fsencode(folder), b".", set(), ignored)
    for at, name in enumerate(rows.paths):
        file = os.fspath(folder / os.fsdecode(bytes(name)))
        yield ImageFile(file, int(rows.sizes[at]), int(rows.mtimes_ns[at]))
