"""Orders: what an actor is told, and what it tells, in plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from featcache.core.specs import FeatureSpec
from featcache.stages.tasks import Setting

# What a feature's bits and the words between machines hang on.
_MUST_AGREE = ("featcache", "ray", "torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What an actor has to do.

    Parameters
    ----------
    setting : Setting
        What to compute.
    wanted : FeatureSpec
        The features' identity.
    device : str
        ``cpu``, or ``cuda:0``, the one GPU that Ray lets the actor see.
    samples : sequence
        Places of some images, as `location_to_json` gives them, that the actor has to
        be able to read.
    """

    setting: Setting
    wanted: FeatureSpec
    device: str
    samples: Sequence[Any]


@cache  # looking them up takes 6 ms, and every actor that comes is compared
def installed() -> dict[str, str]:
    """Return the versions that all machines of a cluster have to have in common.

    Returns
    -------
    dict of str to str
        By the package's name; ``none`` where it is not installed.
    """
    return {package: _version(package) for package in _MUST_AGREE}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
