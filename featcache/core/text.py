"""Words for people: paths with any bytes, counts, the closest known name."""

import difflib
import os
import re
from collections.abc import Iterable

# KEY:SECRET@bucket, in which the secret may hold slashes, but not host:9000/me@here;
# paths make one slash of two.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/+)([^/@]*|[^/@:]*:(?!\d+/)[^@]*)@")
_QUERY = re.compile(r"(:/.*)\?[^/]*=.*")  # a pattern's question mark has no such tail


def without_secrets(text: str) -> str:
    """Return a text without the credentials and queries of its URLs.

    Parameters
    ----------
    text : str
        Such as ``s3://KEY:SECRET@bucket/x.tar``.

    Returns
    -------
    str
        The same where there are none.

    Examples
    --------
    >>> without_secrets("s3://KEY:SECRET@bucket/x.tar?sig=1")
    's3://***@bucket/x.tar?***'
    """
    if ":/" not in text:
        return text
    return _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text))


def shown(path: bytes | str | os.PathLike[str]) -> str:
    r"""Return a path as printable text; bytes that are no UTF-8 become ``\xNN``.

    Parameters
    ----------
    path : bytes, str or path
        Any file name, decoded with surrogateescape or not at all; any other text.

    Returns
    -------
    str
        Text that every UTF-8 terminal and JSON parser accepts, on one line.

    Examples
    --------
    >>> print(shown(b"ants/caf\xe9.jpg"))
    ants/caf\xe9.jpg
    """
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no file name; a file's JSON can say "\\ud800"
        text = str(path)
    text = without_secrets(text)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Join names with commas; beyond the limit say how many more there are.

    Parameters
    ----------
    names : iterable of str
        What to list.
    limit : int
        How many are named at most.

    Returns
    -------
    str
        For example ``'a, b and 3 more'``.
    """
    names = list(names)
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def plural(count: int, noun: str) -> str:
    """Return ``'1 image'`` or ``'2 images'`` (``'2 classes'``).

    Parameters
    ----------
    count : int
        How many.
    noun : str
        The singular.

    Returns
    -------
    str
        Count and noun.
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a likely slip of the keys, else ``''``.

    Parameters
    ----------
    name : str
        What was typed.
    known : iterable of str
        What exists.

    Returns
    -------
    str
        A tail for an error message.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def times(shape: Iterable[int]) -> str:
    """Return a shape as people write it.

    Parameters
    ----------
    shape : iterable of int
        Its sides.

    Returns
    -------
    str
        With an x between them.

    Examples
    --------
    >>> times((256, 14, 14))
    '256x14x14'
    """
    return "x".join(map(str, shape))


def size(count: float) -> str:
    """Return a number of bytes in a unit that suits it.

    Parameters
    ----------
    count : float
        Bytes.

    Returns
    -------
    str
        Three digits and a decimal unit.

    Examples
    --------
    >>> size(890_880)
    '891 kB'
    """
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 999.5 and unit != "TB":
        count, unit = count / 1000, next(units)
    return f"{count:.3g} {unit}"
