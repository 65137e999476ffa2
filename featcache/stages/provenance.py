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


def describe_run(**details: Any) -> Mapping[str, Any]:  # noqa: ANN401 - JSON data
    """Return the provenance of what is being made now.

    Parameters
    ----------
    **details
        What the caller adds: JSON data.

    Returns
    -------
    mapping
        Time (``began_ns``: nanoseconds since 1970, UTC), versions, platform, details.
    """
    now = time.time_ns()
    began = datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="seconds")
    return {
        "began": began,
        "began_ns": now,
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
