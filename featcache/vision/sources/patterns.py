"""Patterns: the files that ``data/{000..099}.tar`` or ``data/*.tar`` stand for."""

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featcache.core.addresses import is_url
from featcache.core.errors import DataError
from featcache.core.text import listed, plural, shown
from featcache.vision.sources.remote import forget_listings, remote_files

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAGIC = re.compile(r"[*?\[{]")
AT_ONCE = 32  # requests, each of which mostly waits
_MOST = 100_000  # files of one pattern

Tell = Callable[[str], object]


def has_pattern(text: str) -> bool:
    """Tell whether a text is a pattern and no plain path.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    bool
        True where it has ``*``, ``?``, ``[`` or ``{``.
    """
    return _MAGIC.search(text) is not None


def folder_of(pattern: str) -> str:
    """Return the folder below which all files of a pattern lie.

    Parameters
    ----------
    pattern : str
        A pattern or a plain path.

    Returns
    -------
    str
        Its beginning without any pattern; ``.`` for the current folder.
    """
    found = _MAGIC.search(pattern)
    plain = pattern[: found.start()] if found else pattern
    return os.path.dirname(plain) or "."  # noqa: PTH120 - text, not yet a path


def name_of(folder: str) -> str:
    """Return what a folder is called.

    Parameters
    ----------
    folder : str
        A path or a URL.

    Returns
    -------
    str
        Its last part; empty for the root of all.
    """
    if is_url(folder):
        return folder.rstrip("/").rpartition("/")[2]
    return Path(folder).resolve().name


def expand(pattern: str) -> Iterator[str]:
    """Yield what a pattern's braces stand for.

    Parameters
    ----------
    pattern : str
        With ``{000..099}`` or ``{train,val}``, one inside another too.

    Yields
    ------
    str
        Each without braces, in their order.

    Examples
    --------
    >>> list(expand("{train,val}/{08..10}.tar"))[:4]
    ['train/08.tar', 'train/09.tar', 'train/10.tar', 'val/08.tar']
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    before, behind = pattern[: found.start()], pattern[found.end() :]
    for choice in _choices(found[1]):
        yield from expand(before + choice + behind)


def matching_files(pattern: str) -> list[str]:
    """Return the files of a pattern, each once, ordered by their paths.

    Parameters
    ----------
    pattern : str
        Braces name files that must be there, ``*`` and ``?`` those that are.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    DataError
        When a file that the braces name is missing, or nothing matches.
    """
    if os.path.isfile(pattern):  # noqa: PTH113 - some files are called [like this]
        return [pattern]
    names = list(itertools.islice(expand(pattern), _MOST + 1))
    if len(names) > _MOST:
        raise DataError(f"{shown(pattern)} stands for more than {_MOST:,} files")
    if is_url(pattern):
        forget_listings(pattern)
    with ThreadPoolExecutor(AT_ONCE if is_url(pattern) else 1) as pool:
        matches = [*pool.map(_matches, names)]
    found = {path for each in matches for path in each}
    missing = [name for name, each in zip(names, matches, strict=True) if not each]
    if not missing:
        return sorted(found, key=os.fsencode)
    if len(names) == 1:
        raise DataError(f"no file matches {shown(pattern)}")
    raise DataError(
        f"{shown(pattern)} stands for {plural(len(names), 'file')}, of which "
        f"{len(missing):,} cannot be found: {listed(map(shown, missing), 3)}; write * "
        "for whatever is there"
    )


def names_below(files: Sequence[str], folder: str) -> list[str]:
    """Return what images' paths begin with.

    Parameters
    ----------
    files : sequence of str
        Paths or URLs.
    folder : str
        In which all of them lie, see `folder_of`.

    Returns
    -------
    list of str
        Relative to the folder, with ``/``.
    """
    if is_url(folder):
        return [file.removeprefix(folder).lstrip("/") for file in files]
    return [os.path.relpath(file, folder).replace(os.sep, "/") for file in files]


def _matches(name: str) -> list[str]:
    if is_url(name):
        return remote_files(name)
    found = glob.glob(name, recursive=True) if glob.has_magic(name) else [name]  # noqa: PTH207
    return [path for path in found if os.path.isfile(path)]  # noqa: PTH113


def _choices(text: str) -> Iterator[str]:
    limits = _RANGE.fullmatch(text)
    if limits is None:
        yield from text.split(",")
        return
    first, last = limits.groups()
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    step = 1 if int(first) <= int(last) else -1
    for number in range(int(first), int(last) + step, step):
        yield f"{number:0{width}d}"
