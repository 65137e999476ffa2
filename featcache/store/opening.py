"""Opening caches: one file, several as one, or the files of a pattern."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from featcache.core.errors import CacheCorruptError, CacheNotFoundError
from featcache.core.text import shown
from featcache.store.parts import PartedCache
from featcache.store.reader import FeatureCache
from featcache.store.reader import open_cache as open_file

_UNFINISHED = ".partial"
_OTHERS = (
    _UNFINISHED,
    f"{_UNFINISHED}.old",
    ".lock",
    ".inflight",
)  # files beside a cache

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a pattern such as ``cache/part-*.h5``.

    Parameters
    ----------
    path : str or path
        A file that is there is no pattern, whatever its name.

    Returns
    -------
    bool
        True for one with ``*``, ``?`` or ``[``.
    """
    return glob.has_magic(os.fspath(path)) and not Path(path).exists()


def open_cache(path: Paths) -> FeatureCache | PartedCache:
    """Open a complete cache, or several files as one.

    Every digest of a file is checked while it is at most 256 MiB; above that the
    header and the values only, and ``featcache verify`` checks the rest.

    Parameters
    ----------
    path : str, path, or iterable of them
        A ``.h5`` file; a pattern such as ``cache/part-*.h5``; or files.

    Returns
    -------
    FeatureCache or PartedCache
        Of one file mapped read-only, or of several; both are read alike.

    Raises
    ------
    CacheNotFoundError
        When there is no such file, no file of the pattern, one that is unfinished, or
        a part of a set is missing.
    CacheCorruptError
        When one is no cache of ours, or is damaged.
    CacheMismatchError
        When a newer featcache wrote one, or the files do not belong together.
    StorageError
        When one cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        return open_parts(list(map(Path, path)))
    if is_pattern(path):
        return open_parts(_matching(os.fspath(path)), pattern=Path(path))
    return open_file(path)


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a path stands for.

    Parameters
    ----------
    path : str or path
        A file, or a pattern such as ``cache/part-*.h5``.

    Returns
    -------
    list of Path
        One, or those of the pattern in the order of their names.

    Raises
    ------
    CacheNotFoundError
        When there is no file of the pattern, or one that is unfinished.
    """
    return _matching(os.fspath(path)) if is_pattern(path) else [Path(path)]


def open_parts(
    paths: Sequence[Path],
    *,
    pattern: Path | None = None,
    opener: Callable[[Path], FeatureCache] = open_file,
) -> PartedCache:
    """Open files as one cache.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    pattern : Path, optional
        What they were found by; for messages.
    opener : callable
        Opens and checks one file.

    Returns
    -------
    PartedCache
        Closes the files when it is closed.

    Raises
    ------
    CacheError
        When one is missing or damaged, or they do not belong together.
    """
    if not paths:
        raise CacheNotFoundError("no cache was named")
    parts: list[FeatureCache] = []
    try:
        parts += map(opener, paths)
        return PartedCache(parts, pattern)
    except BaseException:
        for part in parts:
            part.close()
        raise


def open_manifest(path: Path) -> FeatureCache:
    """Open a cache of which only the manifest's digest and the values are checked.

    Parameters
    ----------
    path : Path
        The ``.h5`` file.

    Returns
    -------
    FeatureCache
        Its blocks are for the caller to check.

    Raises
    ------
    CacheError
        See `featcache.store.reader.open_cache`.
    """
    cache = FeatureCache(path)
    try:
        cache.check_manifest()
        cache.check_values()
    except CacheCorruptError:
        cache.close()
        raise
    return cache


def _matching(pattern: str) -> list[Path]:
    """Return the caches of a pattern, in the order of their names."""
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute one
    named = [name for name in found if not name.endswith(_OTHERS)]
    partial = glob.glob(pattern + _UNFINISHED)  # noqa: PTH207
    begun = [name.removesuffix(_UNFINISHED) for name in partial]
    missing = sorted(set(begun) - set(named))
    if missing:
        raise CacheNotFoundError(
            f"{shown(missing[0])} is not finished; let its 'featcache extract' end, or "
            "name the other files one by one"
        )
    if not named:
        raise CacheNotFoundError(
            f"no cache {shown(pattern)}; make one with 'featcache extract'"
        )
    return list(map(Path, named))
