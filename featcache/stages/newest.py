"""The cache that is meant where none is named: the newest one."""

import os
from pathlib import Path

from featcache.core.errors import CacheNotFoundError
from featcache.core.shards import set_pattern
from featcache.stages.extraction import CACHE_FOLDER


def newest_cache(folder: Path = CACHE_FOLDER) -> Path:
    """Return the cache that was completed last.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    Path
        The newest ``.h5`` file in it; of one that ``extract --shard`` made, the
        pattern of all parts.

    Raises
    ------
    CacheNotFoundError
        When there is none.
    """
    newest = newest_file(folder)
    return set_pattern(newest) or newest


def newest_file(folder: Path = CACHE_FOLDER) -> Path:
    """Return the file that was completed last, be it a part of a set.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    Path
        The newest ``.h5`` file in it.

    Raises
    ------
    CacheNotFoundError
        When there is none.
    """
    files = [p for p in folder.glob("*.h5") if p.is_file()]
    if not files:
        raise CacheNotFoundError(
            f"no cache in {folder}{os.sep}; make one with 'featcache extract', or name "
            "a file"
        )
    return max(files, key=lambda path: path.stat().st_mtime_ns)
