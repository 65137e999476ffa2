"""Addresses: paths of this machine, and URLs of what lies elsewhere."""

import os
import posixpath
import re
from urllib.parse import unquote

from featcache.core.errors import DataError
from featcache.core.text import without_secrets

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of two letters: C: is a disk
_LOCAL = "file://"


def is_url(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is a URL and no path.

    Parameters
    ----------
    text : str or path
        What was typed.

    Returns
    -------
    bool
        True for ``s3://bucket/key``.
    """
    return isinstance(text, str) and _SCHEME.match(text) is not None


def absolute(address: str) -> str:
    """Return an address that means the same in every folder of this machine.

    Parameters
    ----------
    address : str
        A path, a pattern of paths, or a URL.

    Returns
    -------
    str
        A URL as it is; a path from the root, its bytes as they are.
    """
    return address if is_url(address) else os.path.abspath(address)  # noqa: PTH100


def of_file_url(text: str) -> str:
    """Return the path that a ``file://`` URL means.

    Parameters
    ----------
    text : str
        A path or a URL.

    Returns
    -------
    str
        A path, or what was given where it is another URL.
    """
    if not text.startswith(_LOCAL):
        return text
    return unquote(text.removeprefix(_LOCAL).removeprefix("localhost"))


def joined(folder: str, path: str) -> str:
    """Return the URL of what lies below another.

    Parameters
    ----------
    folder : str
        A URL.
    path : str
        Relative to it; ``..`` leads up.

    Returns
    -------
    str
        A URL.

    Examples
    --------
    >>> joined("s3://bucket/lists", "../images/a.jpg")
    's3://bucket/images/a.jpg'
    """
    scheme, _, rest = folder.partition("://")
    whole = f"{rest.rstrip('/')}/{path}"
    # An object store tells a//b from a/b, so that nothing else is put in order.
    return f"{scheme}://{posixpath.normpath(whole) if '..' in path else whole}"


def require_no_secret(url: str, where: str = "the address") -> None:
    """Refuse a URL that holds credentials: addresses are shown and recorded.

    Parameters
    ----------
    url : str
        What was typed.
    where : str
        What it is called in the error.

    Raises
    ------
    DataError
        When it has a user, a password or a query; which are not repeated.
    """
    if without_secrets(url) != url:
        raise DataError(
            f"{where} ({without_secrets(url)}) holds credentials or a query, which "
            "would be recorded; leave them to the environment or the files in which "
            "fsspec looks for them, such as AWS_PROFILE"
        )
