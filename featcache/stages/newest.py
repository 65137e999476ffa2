"""The cache that is meant where none is named: the newest one."""

import os
from pathlib import Path

from featcache.core.errors import CacheError, CacheNotFoundError
from featcache.core.shards import set_pattern
from featcache.stages.extraction import CACHE_FOLDER
from featcache.store.reader import FeatureCache


def newest_cache(folder: Path = CACHE_FOLDER, *, maps: bool = False) -> Path:
    """Return the cache that was completed last.

    Parameters
    ----------
    folder : Path
        Where to look.
    maps : bool
        Whether maps of a stage count as well; nobody fits a head on them.

    Returns
    -------
    Path
        The newest ``.h5`` file in it, even one that cannot be read: somebody should
        know. Of one that ``extract --shard`` made, the pattern of all parts.

    Raises
    ------
    CacheNotFoundError
        When there is none.
    """
    newest = newest_file(folder, maps=maps)
    return set_pattern(newest) or newest


def newest_file(folder: Path = CACHE_FOLDER, *, maps: bool = False) -> Path:
    """Return the file that was completed last, be it a part of a set.

    Parameters
    ----------
    folder : Path
        Where to look.
    maps : bool
        Whether maps of a stage count as well.

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
    newest = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest:
        if maps or not _holds_maps(path):
            return path
    held = "no cache of features, but maps of a stage," if files else "no cache"
    raise CacheNotFoundError(
        f"{held} in {folder}{os.sep}; make one with 'featcache extract', or name a file"
    )


def _holds_maps(path: Path) -> bool:
    try:
        with FeatureCache(path) as cache:  # the header alone is read
            return cache.map_shape is not None
    except CacheError:
        return False
