"""The recipe of a training: all that its weights follow from, in a form to compare."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featcache.core.catalog import DEFAULT_BACKBONE
from featcache.core.errors import CheckpointError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.heads import LinearHead
from featcache.core.specs import Exif, OnError
from featcache.core.text import listed, shown

Rows = npt.NDArray[np.int64]

DEFAULT_DATA = "hymenoptera"

_SPEED_ALONE = ("workers", "store")  # fields that change seconds and nothing else


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a training was asked for, as a checkpoint can hold it."""

    data: str = DEFAULT_DATA
    spec: FinetuneSpec = field(default_factory=FinetuneSpec)
    backbone: str = DEFAULT_BACKBONE
    weights: str | None = None  # imagenet, or those that made the cache
    exif: Exif = "apply"
    on_error: OnError = "stop"
    init_head: str | None = None
    from_cache: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain data.

        Returns
        -------
        dict
            JSON data.
        """
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Return the request that `to_json` wrote.

        Parameters
        ----------
        found : mapping
            Its fields.

        Returns
        -------
        Request
            Equal to the one written.
        """
        known = {f.name: found[f.name] for f in fields(cls)}
        return cls(**{**known, "spec": FinetuneSpec(**known["spec"])})


def spec_fields(spec: FinetuneSpec) -> dict[str, Any]:
    """Return the settings that change weights.

    Parameters
    ----------
    spec : FinetuneSpec
        The settings.

    Returns
    -------
    dict
        JSON data.
    """
    fields = asdict(spec)
    return {name: fields[name] for name in fields if name not in _SPEED_ALONE}


def images_digest(columns: Mapping[str, npt.NDArray[Any]], rows: Rows) -> str:
    """Return what identifies the images of a training, without reading them.

    Parameters
    ----------
    columns : mapping of str to ndarray
        Of a manifest or a cache: ``paths``, ``sizes``, ``labels`` and ``splits``.
    rows : ndarray of int64
        Those that take part.

    Returns
    -------
    str
        sha256 over these columns, 64 hex digits.
    """
    digest = hashlib.sha256()
    for path in columns["paths"][rows].tolist():
        digest.update(len(path).to_bytes(8, "little") + path)
    for name in ("sizes", "labels", "splits"):
        digest.update(np.ascontiguousarray(columns[name][rows], np.int64).tobytes())
    return digest.hexdigest()


def head_digest(head: LinearHead) -> str:
    """Return what identifies the head that a training starts from.

    Parameters
    ----------
    head : LinearHead
        Weight and bias.

    Returns
    -------
    str
        sha256, 64 hex digits.
    """
    values = head.weight.tobytes() + head.bias.tobytes()
    return hashlib.sha256(values).hexdigest()


def require_same(there: Mapping[str, Any], here: Mapping[str, Any], run: str) -> None:
    """Refuse to go on with another training than the one that was begun.

    Parameters
    ----------
    there : mapping
        The recipe in the checkpoint.
    here : mapping
        What is asked for.
    run : str
        The run's folder, for messages.

    Raises
    ------
    CheckpointError
        Naming what differs, and both values.
    """
    if there["classes"] != here["classes"]:
        raise CheckpointError(
            f"the classes have changed since {run} was begun: "
            f"{_changes(there['classes'], here['classes'])}; bring the folder back to "
            "what it was, or start anew with another --out"
        )
    if there["images"] != here["images"]:
        raise CheckpointError(
            f"the images have changed since {run} was begun ("
            f"{there['image_count']:,} then, {here['image_count']:,} now), so the same "
            "weights cannot come out; bring the folder back to what it was, or start "
            "anew with another --out"
        )
    for name in ("weights_sha256", "view", "head", "cache"):
        same = there["backbone"] == here["backbone"]  # else that is what to say
        if same and there.get(name) != here.get(name):
            raise CheckpointError(
                f"{name} is another than when {run} was begun; bring the file back "
                "that it was begun with, or start anew with another --out"
            )
    for name, old, new in _differences(there, here):
        raise CheckpointError(
            f"{run} holds an unfinished training with {name} {old!r}, not {new!r}; go "
            f"on with it as it was begun by 'featcache finetune --resume {run}', or "
            "choose another --out"
        )


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> Iterator[tuple[str, object, object]]:
    for name in here:
        old, new = there.get(name), here[name]
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            yield from _differences(old, new)
        elif old != new:
            yield name, old, new


def _changes(then: list[str], now: list[str]) -> str:
    gone = [shown(name) for name in then if name not in now]
    new = [shown(name) for name in now if name not in then]
    parts = []
    if gone:
        parts.append(f"{listed(gone, 3)} is gone")
    if new:
        parts.append(f"{listed(new, 3)} is new")
    return " and ".join(parts) or "they are in another order"
