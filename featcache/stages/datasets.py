"""Known data sets: a name stands for a folder that is fetched or made when missing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.addresses import is_url
from featcache.core.errors import DataError
from featcache.core.progress import SILENT, Progress
from featcache.core.sources import Source
from featcache.core.text import closest, shown
from featcache.stages.archives import made_whole, unpack
from featcache.stages.downloads import Checksum, RemoteFile, download
from featcache.store.indexes import ShardIndexes
from featcache.vision.sources.opening import open_source
from featcache.vision.sources.patterns import has_pattern

DATA_FOLDER = Path("data")

_VAL_EVERY = 5  # of digits: the fifth, tenth, ... sample of each class is for val


@dataclass(frozen=True)
class KnownData:
    """A data set that has a name."""

    folder: str  # its folder's name, on disk and at the top of its archive
    archive: RemoteFile | None = None  # None: made here, needs no network


KNOWN: Mapping[str, KnownData] = {
    # ants and bees of PyTorch's transfer learning tutorial, 397 images
    "hymenoptera": KnownData(
        "hymenoptera_data",
        RemoteFile(
            "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
            Checksum(
                "sha256",
                "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
            ),
            size=47_286_322,
        ),
    ),
    # hot dogs and other food, of the fine-tuning chapter of "Dive into Deep Learning",
    # which publishes the address and the sha1
    "hotdog": KnownData(
        "hotdog",
        RemoteFile(
            "http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
            Checksum("sha1", "fba480ffa8aa7e0febbb511d181409f899b9baa5"),
        ),
    ),
    # 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn
    "digits": KnownData("digits"),
}


def resolve_data(
    data: str | os.PathLike[str], *, progress: Progress, folder: Path = DATA_FOLDER
) -> Path:
    """Return the folder that DATA means.

    A string that is exactly a known name is that data set, whatever lies in the
    current folder: ``digits`` is the data set, ``./digits`` and ``Path("digits")``
    are a folder of yours.

    Parameters
    ----------
    data : str or path
        Name of a known data set, or a folder.
    progress : Progress
        Hears of the download, the unpacking, the images made.
    folder : Path
        Where known data sets are kept.

    Returns
    -------
    Path
        A complete folder for a known name; otherwise the path, looked at no further.

    Raises
    ------
    DataError
        When a single word is neither a known name nor there, or when an archive
        cannot be unpacked.
    DownloadError
        When a data set cannot be fetched, or its archive is not the published one.
    StorageError
        When the disk is full or the folder cannot be written.
    """
    if isinstance(data, str) and data in KNOWN:
        return _known_folder(KNOWN[data], folder, progress)
    path = Path(data)
    there = data and path.exists()  # Path("") would be the current folder
    if isinstance(data, str) and data == path.name and not there:
        raise DataError(
            f"there is no folder {shown(data)!r} here and no known data set of that "
            f"name{closest(data, KNOWN)} (known: {', '.join(KNOWN)})"
        )
    return path


def data_source(
    data: str | os.PathLike[str],
    *,
    progress: Progress = SILENT,
    use_cut: bool = False,
    fresh: bool = False,
) -> Source:
    """Return the source that DATA means.

    Parameters
    ----------
    data : str or path
        Name of a known data set, a folder, a list of files, or tar shards; see
        `featcache.vision.sources.opening.open_source`.
    progress : Progress
        Hears of what is fetched or made, and of shards that were cut off.
    use_cut : bool
        Use the images of a shard before the place where it was cut off.
    fresh : bool
        Read the headers of every shard, whatever is remembered of them.

    Returns
    -------
    Source
        Not scanned yet.

    Raises
    ------
    DataError
        When there is nothing of that name.
    DownloadError
        When a known data set cannot be fetched.
    """
    if not (isinstance(data, str) and (has_pattern(data) or is_url(data))):
        data = resolve_data(data, progress=progress)
    saved = None if fresh else ShardIndexes(index_folder(), progress.say)
    return open_source(data, use_cut=use_cut, tell=progress.say, saved=saved)


def index_folder() -> Path:
    """Return where is remembered what was read of tar shards.

    Returns
    -------
    Path
        ``featcache/shards`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``; whoever
        deletes it has all headers read once more.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "featcache" / "shards"


def recorded_source(address: str, progress: Progress) -> Source:
    """Return the source that a cache recorded.

    Parameters
    ----------
    address : str
        Of the source; a path even where it is called as a known data set.
    progress : Progress
        Hears of shards that were cut off.

    Returns
    -------
    Source
        Not scanned yet.
    """
    data = address if is_url(address) else Path(address)
    return data_source(data, progress=progress, use_cut=True)


def _known_folder(known: KnownData, folder: Path, progress: Progress) -> Path:
    target = folder / known.folder
    if target.exists():
        return target
    if known.archive is None:
        with made_whole(target) as partial:
            write_digits(partial / known.folder, progress=progress)
    else:
        _fetch(known.archive, target, progress)
    return target


def _fetch(file: RemoteFile, target: Path, progress: Progress) -> None:
    archive = target.with_name(f"{target.name}.zip")
    put_by_hand = archive.exists()
    otherwise = (
        f"its content at {shown(target)}; "
        "'digits' and folders of your own need no network"
    )
    download(file, archive, progress=progress, otherwise=otherwise)
    with made_whole(target) as partial:
        unpack(archive, partial, progress=progress)
        if not (partial / target.name).is_dir():
            raise DataError(f"{shown(archive)} holds no folder {target.name!r}")
    if not put_by_hand:
        archive.unlink(missing_ok=True)


def write_digits(target: Path, *, progress: Progress) -> None:
    """Write scikit-learn's handwritten digits as greyscale PNG files.

    The layout is ``{train,val}/{0..9}/NNNN.png``, where NNNN is the sample's row in
    ``sklearn.datasets.load_digits``. Every fifth sample of each class is for val: 1,442
    and 355 images. Neighbouring rows are often of one writer, so val asks whether
    a digit is recognised, not whether a new writer's is.

    Parameters
    ----------
    target : Path
        Folder to be made.
    progress : Progress
        Hears of the images.

    Raises
    ------
    OSError
        When a file cannot be written.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels: npt.NDArray[np.int64] = digits.target
    splits = _digit_splits(labels)
    # (1797, 8, 8), levels 0 to 16
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    for split in ("train", "val"):
        for label in range(10):
            (target / split / str(label)).mkdir(parents=True)
    progress.begin("write digits", len(labels), unit="image")
    try:
        for row, (image, label, split) in enumerate(
            zip(pixels, labels, splits, strict=True)
        ):
            Image.fromarray(image).save(target / split / str(label) / f"{row:04}.png")
            progress.advance(1)
    finally:
        progress.end()


def _digit_splits(labels: npt.NDArray[np.int64]) -> list[str]:
    seen = np.zeros(10, dtype=np.int64)
    splits = []
    for label in labels:
        seen[label] += 1
        splits.append("train" if seen[label] % _VAL_EVERY else "val")
    return splits
