"""Libraries that are not installed with featcache by default."""

from importlib import import_module
from typing import Any

from featcache.core.errors import DependencyError


def optional(library: str, purpose: str, *, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import a library that is not installed with featcache by default.

    Parameters
    ----------
    library : str
        Name of the module.
    purpose : str
        What it is needed for.
    extra : str
        Of featcache, that installs it.

    Returns
    -------
    module
        Imported.

    Raises
    ------
    DependencyError
        Saying what to install.
    """
    try:
        return import_module(library)
    except ImportError:
        root = library.partition(".")[0]
        raise DependencyError(
            f"{purpose} needs {root}, which is not installed; "
            f"pip install 'featcache[{extra}]'"
        ) from None
