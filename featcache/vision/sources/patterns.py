"""Patterns: the files that ``data/{000..099}.tar`` or ``data/*.tar`` stand for."""

import glob
import itertools
import os
import re
from collections.abc import Iterator

from featcache.core.errors import DataError
from featcache.core.text import listed, plural, shown

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAGIC = re.compile(r"[*?\[{]")
_MOST = 100_000  # files of one pattern


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
    found: set[str] = set()
    missing = []
    for name in names:
        matches = glob.glob(name, recursive=True) if glob.has_magic(name) else [name]  # noqa: PTH207
        there = [path for path in matches if os.path.isfile(path)]  # noqa: PTH113
        found.update(there)
        if not there:
            missing.append(name)
    if not missing:
        return sorted(found, key=os.fsencode)
    if len(names) == 1:
        raise DataError(f"no file matches {shown(pattern)}")
    raise DataError(
        f"{shown(pattern)} stands for {plural(len(names), 'file')}, of which "
        f"{len(missing):,} cannot be found: {listed(map(shown, missing), 3)}; write * "
        "for whatever is there"
    )


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
