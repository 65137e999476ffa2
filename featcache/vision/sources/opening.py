"""Opening: which source a path or a pattern means."""

import os
from pathlib import Path

from featcache.core.errors import DataError
from featcache.core.progress import SILENT
from featcache.core.sources import Source
from featcache.core.text import shown
from featcache.vision.levels import split_of
from featcache.vision.listing import contents, inside
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.lists import DELIMITERS, JSON_LINES, FileList
from featcache.vision.sources.patterns import folder_of, has_pattern
from featcache.vision.sources.shards import TarShards, Tell

_TAR = ".tar"
_KIND = ".tar file"  # as a folder's listing counts them
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_source(
    data: str | os.PathLike[str],
    *,
    use_cut: bool = False,
    tell: Tell = SILENT.say,
) -> Source:
    """Return the source that a path or a pattern means.

    Parameters
    ----------
    data : str or path
        A folder of class folders; a list, ``.csv``, ``.tsv`` or ``.jsonl``; tar shards,
        as a pattern such as ``data/{000..099}.tar`` or as their folder.
    use_cut : bool
        Use the images of a shard before the place where it was cut off.
    tell : callable
        Hears a line for each shard that was.

    Returns
    -------
    Source
        Not scanned yet; what is nothing else is taken for a folder.

    Raises
    ------
    DataError
        When it can be no source.
    """
    path, text = Path(data), os.fspath(data)
    if path.is_dir():
        pattern = _shards_in(path)
        return TarShards(pattern, use_cut, tell) if pattern else Folder(path)
    if text.lower().endswith((*DELIMITERS, *JSON_LINES)):
        return FileList(path)
    if text.lower().endswith(_COMPRESSED):
        raise DataError(
            f"{shown(text)} is compressed, so that no image can be read without all "
            "before it; unpack it to a plain .tar"
        )
    if is_list_or_shards(text) or has_pattern(text):
        return TarShards(text, use_cut, tell)
    return Folder(path)


def is_list_or_shards(data: str | os.PathLike[str]) -> bool:
    """Tell by its ending whether a path or a pattern is of a list or of tar shards.

    Parameters
    ----------
    data : str or path
        As `open_source` takes it.

    Returns
    -------
    bool
        False for a folder of shards, which is a folder.
    """
    text = os.fspath(data).lower()
    return text.endswith((_TAR, *DELIMITERS, *JSON_LINES))


def source_is_there(address: str) -> bool:
    """Tell whether anything lies at an address; `Source.scan` says what is missing.

    Parameters
    ----------
    address : str
        A path or a pattern.

    Returns
    -------
    bool
        True where it can be looked into.
    """
    if Path(address).exists():
        return True
    return has_pattern(address) and Path(folder_of(address)).is_dir()


def _shards_in(folder: Path) -> str | None:
    """Return the pattern of the shards in a folder, where it has nothing but these."""
    root = os.fsencode(folder)
    here = contents(root)
    if here.ignored[_KIND] and not here.folders:
        return os.path.join(folder, f"*{_TAR}")  # noqa: PTH118 - text
    splits = [name for name in here.folders if split_of(name) is not None]
    if not splits or len(splits) < len(here.folders):
        return None
    inner = [contents(inside(root, name)) for name in splits]
    if all(each.ignored[_KIND] and not each.folders for each in inner):
        return os.path.join(folder, "*", f"*{_TAR}")  # noqa: PTH118 - text
    return None
