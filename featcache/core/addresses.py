"""Addresses: paths of this machine, and URLs of what lies elsewhere."""

import os
import re

from featcache.core.errors import DataError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of two letters: C: is a disk
_QUERY = re.compile(r"\?[^/]*=")  # a pattern's question mark has no such tail


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


def require_no_secret(url: str) -> None:
    """Refuse a URL that holds credentials: addresses are shown and recorded.

    Parameters
    ----------
    url : str
        What was typed.

    Raises
    ------
    DataError
        When it has a user, a password or a query; which are not repeated.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest.split("/", 1)[0] or _QUERY.search(rest):
        raise DataError(
            f"the {scheme}:// address holds credentials or a query, which would be "
            "shown and recorded; leave them to the environment or the files in which "
            "fsspec looks for them, such as AWS_PROFILE"
        )
