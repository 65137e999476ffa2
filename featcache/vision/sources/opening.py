"""Opening: which source a path or a pattern means."""

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featcache.core.addresses import is_url, require_no_secret
from featcache.core.errors import DataError
from featcache.core.progress import SILENT
from featcache.core.sources import Source
from featcache.core.text import shown
from featcache.vision.levels import split_of
from featcache.vision.listing import FOLDER, contents, inside, listing
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.lists import DELIMITERS, JSON_LINES, FileList
from featcache.vision.sources.patterns import folder_of, has_pattern
from featcache.vision.sources.shards import Saved, TarShards, Tell
from featcache.vision.sources.tables import TABLES, Tables

_TAR = ".tar"
_DICT, _STATE = b"dataset_dict.json", b"state.json"  # of datasets' save_to_disk
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_source(
    data: str | os.PathLike[str],
    *,
    use_cut: bool = False,
    tell: Tell = SILENT.say,
    saved: Saved | None = None,
) -> Source:
    """Return the source that a path or a pattern means.

    Parameters
    ----------
    data : str or path
        A folder of class folders; a list, ``.csv``, ``.tsv`` or ``.jsonl``; tar shards,
        as a pattern such as ``data/{000..099}.tar`` or as their folder; Parquet or
        Arrow files in the same way; a data set that Hugging Face's ``datasets`` saved.
    use_cut : bool
        Use the images of a shard before the place where it was cut off.
    tell : callable
        Hears a line for each shard that was.
    saved : Saved, optional
        Where the headers of large shards are remembered.

    Returns
    -------
    Source
        Not scanned yet; what is nothing else is taken for a folder.

    Raises
    ------
    DataError
        When it can be no source.
    """
    shards = partial(TarShards, use_cut=use_cut, tell=tell, saved=saved)
    if isinstance(data, str) and is_url(data):
        return _at_url(data, shards)
    path = Path(data)
    if not path.is_dir():
        return _named(os.fspath(data), shards) or Folder(path)
    pattern = _pattern_in(path)
    if pattern is None:
        return Folder(path)
    if pattern.endswith(TABLES):
        return Tables(pattern, called=path.resolve().name)
    return shards(pattern)


def _named(text: str, shards: Callable[[str], Source]) -> Source | None:
    """Return the source that a path or a pattern means by its ending."""
    ending = text.lower()
    if ending.endswith(_COMPRESSED):
        raise DataError(
            f"{shown(text)} is compressed, so that no image can be read without all "
            "before it; unpack it to a plain .tar"
        )
    if ending.endswith((*DELIMITERS, *JSON_LINES)):
        return FileList(Path(text))
    if ending.endswith(TABLES):
        return Tables(text)
    if ending.endswith(_TAR) or has_pattern(text):
        return shards(text)
    return None


def _at_url(url: str, shards: Callable[[str], Source]) -> Source:
    require_no_secret(url)
    ending = url.lower()
    if ending.endswith(_TAR):
        return shards(url)
    if ending.endswith(".parquet"):
        return Tables(url)
    raise DataError(
        f"{shown(url)} is no source of images: at a URL these are tar shards and "
        "Parquet files, named one by one or by a pattern, such as "
        "s3://bucket/data/{000..099}.tar"
    )


def is_no_folder(data: str | os.PathLike[str]) -> bool:
    """Tell by its ending whether a path or a pattern is of a list, shards or tables.

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
    return text.endswith((_TAR, *TABLES, *DELIMITERS, *JSON_LINES))


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
    if is_url(address) or Path(address).exists():
        return True
    return has_pattern(address) and Path(folder_of(address)).is_dir()


def _pattern_in(folder: Path) -> str | None:
    """Return the pattern of the files in a folder that has nothing but one kind."""
    here = _files_in(os.fsencode(folder))
    root = glob.escape(os.fspath(folder))
    if _DICT in here.names:  # of several data sets, each in the folder of its split
        return f"{root}/*/data-*.arrow"
    if _STATE in here.names:  # beside which caches of other columns may lie
        return f"{root}/data-*.arrow"
    if not here.folders:
        return f"{root}/*{here.kind}" if here.kind else None
    if any(split_of(name) is None for name in here.folders):
        return None
    inner = [_files_in(inside(os.fsencode(folder), name)) for name in here.folders]
    kinds = {None if each.folders else each.kind for each in inner}
    kind = kinds.pop()
    return f"{root}/*/*{kind}" if kind and not kinds else None


@dataclass(frozen=True)
class _Files:
    """What lies directly in a folder."""

    folders: list[bytes]
    names: set[bytes]

    @property
    def kind(self) -> str | None:
        """The ending of its shards or tables; None where there are none, or others."""
        endings = [e for e in (_TAR, *TABLES) if any(map(_ends(e), self.names))]
        return endings[0] if len(endings) == 1 else None


def _ends(ending: str) -> Callable[[bytes], bool]:
    return lambda name: name.endswith(ending.encode()) and not name.startswith(b".")


def _files_in(folder: bytes) -> _Files:
    files = {entry.name for kind, entry in listing(folder) if kind != FOLDER}
    return _Files(contents(folder).folders, files)
