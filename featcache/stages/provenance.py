"""Provenance: with what, where and when something was made. Not identity."""

import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    "featcache",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "h5py",
    "scikit-learn",
)


def describe_run(moment: str, **details: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the provenance of what is being made now.

    Parameters
    ----------
    moment : str
        What happens now: ``began`` or ``ended``.
    **details
        What the caller adds: JSON data.

    Returns
    -------
    mapping
        Time (``MOMENT_ns``: nanoseconds since 1970, UTC), versions, platform, details.
    """
    now = time.time_ns()
    text = datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="seconds")
    return {
        moment: text,
        f"{moment}_ns": now,
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {p: v for p in _PACKAGES if (v := _version(p))},
        **details,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
