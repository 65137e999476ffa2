"""Opening: which source a path or a pattern means."""

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featcache.core.addresses import is_url, of_file_url, require_no_secret
from featcache.core.errors import DataError
from featcache.core.progress import SILENT
from featcache.core.sources import Source
from featcache.core.text import shown
from featcache.vision.levels import split_of
from featcache.vision.listing import FOLDER, contents, inside, listing
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.list_lines import JSON_LINES, TABLE_ENDINGS
from featcache.vision.sources.lists import FileList
from featcache.vision.sources.patterns import Tell, folder_of, has_pattern
from featcache.vision.sources.shards import Saved, TarShards
from featcache.vision.sources.tables import TABLES, Tables

Shards = Callable[[str], Source]

_TAR, _PARQUET = ".tar", ".parquet"
_DICT, _STATE = b"dataset_dict.json", b"state.json"  # of datasets' save_to_disk
_LISTS = (*TABLE_ENDINGS, *JSON_LINES)
_AT_URLS = (_TAR, _PARQUET, *_LISTS)
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
        Arrow files in the same way; a data set that Hugging Face's ``datasets`` saved;
        or a URL of a list, tar shards or Parquet files.
    use_cut : bool
        Use the images of a shard before the place where it was cut off.
    tell : callable
        Hears a line for each shard that was, and of tables that need much memory.
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
    text = of_file_url(os.fspath(data))
    shards = partial(TarShards, use_cut=use_cut, tell=tell, saved=saved)
    if is_url(text):
        require_no_secret(text)
    elif Path(text).is_dir():
        return _in_folder(Path(text), shards, tell)
    found = _named(text, shards, tell)
    if found is None and is_url(text):
        raise _no_source(text)
    return found or Folder(Path(text))


def _in_folder(folder: Path, shards: Shards, tell: Tell) -> Source:
    pattern = _pattern_in(folder)
    if pattern is None:
        return Folder(folder)
    if pattern.endswith(TABLES):
        return Tables(pattern, folder.resolve().name, tell)
    return shards(pattern)


def _named(text: str, shards: Shards, tell: Tell) -> Source | None:
    """Return the source that a path or a pattern means by its ending."""
    ending = text.lower()
    if ending.endswith(_COMPRESSED):
        raise _compressed(shown(text))
    if ending.endswith(_LISTS):
        return FileList(text)
    if ending.endswith(_PARQUET if is_url(text) else TABLES):
        return Tables(text, tell=tell)
    if ending.endswith(_TAR) or (has_pattern(text) and not is_url(text)):
        return shards(text)
    return None


def _compressed(name: str) -> DataError:
    return DataError(
        f"{name} is compressed, so that no image can be read without all before it; "
        "unpack it to a plain .tar"
    )


def _no_source(url: str) -> DataError:
    return DataError(
        f"{shown(url)} is no source of images: at a URL these are tar shards, Parquet "
        f"files and lists, named by their endings ({', '.join(_AT_URLS)}), one by one "
        "or by a pattern, such as s3://bucket/data/{000..099}.tar"
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
    return text.endswith((_TAR, *TABLES, *_LISTS))


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
        here.require_plain(folder)
        return f"{root}/*{here.kind}" if here.kind else None
    if all(b"=" in name for name in here.folders):
        kind = _partitioned(os.fsencode(folder))
        return f"{root}/**/*{kind}" if kind else None
    if any(split_of(name) is None for name in here.folders):
        return None
    inner = [_files_in(inside(os.fsencode(folder), name)) for name in here.folders]
    kinds = {None if each.folders else each.kind for each in inner}
    kind = kinds.pop()
    return f"{root}/*/*{kind}" if kind and not kinds else None


def _partitioned(folder: bytes) -> str | None:
    """Return the kind of the tables below folders such as ``split=train``."""
    here = _files_in(folder)
    if here.folders:
        return _partitioned(inside(folder, here.folders[0]))
    return here.kind if here.kind in TABLES else None


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

    def require_plain(self, folder: Path) -> None:
        """Refuse a folder of shards that are compressed."""
        found = [n for e in _COMPRESSED for n in self.names if n.endswith(e.encode())]
        if found and self.kind is None:
            raise _compressed(f"{shown(folder)}/{shown(min(found))}")


def _ends(ending: str) -> Callable[[bytes], bool]:
    return lambda name: name.endswith(ending.encode()) and not name.startswith(b".")


def _files_in(folder: bytes) -> _Files:
    files = {entry.name for kind, entry in listing(folder) if kind != FOLDER}
    return _Files(contents(folder).folders, files)
