"""Files under a passing name: removed when what writes them does not end well."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.store.files import storing


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Remove a file if something is raised.

    Parameters
    ----------
    path : Path
        May be missing.

    Yields
    ------
    None
        To the code that writes it.
    """
    try:
        yield
    except BaseException:
        with storing(path):
            path.unlink(missing_ok=True)
        raise
