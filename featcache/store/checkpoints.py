"""Checkpoints: the state of a training, of which one is there whole at any moment.

Two files: the tensors in safetensors, named by their own digest, and checkpoint.json,
which holds that digest and all that is no tensor. Whatever it names has been on the
disk before it is, so a process may be killed, or the disk be full, at any point.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from featcache.core.checks import SHA256
from featcache.core.errors import CheckpointError
from featcache.core.text import shown
from featcache.store.files import replacing, storing

FORMAT = "featcache-checkpoint"
FORMAT_VERSION = 1

_FILE = "checkpoint.json"
# Also what a killed writer left of one, or of the JSON; no file of anybody else.
_OURS = re.compile(
    r"checkpoint-[0-9a-f]{64}\.safetensors"
    r"|\.checkpoint(-[0-9a-f]{64}\.safetensors|\.json)\.[0-9a-f]{32}\.partial"
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training.

    Parameters
    ----------
    folder : Path
        Where it lies.
    tensors : mapping of str to ndarray
        Of numbers; to be changed at will.
    about : mapping
        JSON data.
    """

    folder: Path
    tensors: Mapping[str, npt.NDArray[Any]]
    about: Mapping[str, Any]


def save_checkpoint(
    folder: Path, tensors: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Write a training's state in the place of the one before.

    Parameters
    ----------
    folder : Path
        Made if need be. One process at a time may write to it.
    tensors : mapping of str to ndarray
        Of numbers, of any shape, by name.
    about : mapping
        JSON data.

    Raises
    ------
    StorageError
        When it cannot be written; the one before is still there then.
    """
    # In C's order: of others safetensors writes the bytes as they lie, silently.
    data = save({k: np.asarray(tensor, order="C") for k, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    _tidy(folder, _named_digest(folder))
    with replacing(_tensors_file(folder, digest)) as temporary:
        temporary.write_bytes(data)
    with replacing(folder / _FILE) as temporary:
        temporary.write_text(_written(digest, about), "ascii")
    _tidy(folder, digest)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read a training's state.

    Parameters
    ----------
    folder : Path
        As `save_checkpoint` was given it.

    Returns
    -------
    Checkpoint or None
        Checked against its digests; None where there is none.

    Raises
    ------
    CheckpointError
        When it is damaged, or no checkpoint of this featcache.
    """
    file = folder / _FILE
    try:
        text = file.read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error
    try:
        digest, about = _read(text, file)
        tensors = _read_tensors(_tensors_file(folder, digest), digest)
    except CheckpointError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    return Checkpoint(folder, tensors, about)


def remove_checkpoint(folder: Path) -> None:
    """Remove a training's state, and its folder where nothing else is in it.

    Parameters
    ----------
    folder : Path
        As `save_checkpoint` was given it; need not exist.

    Raises
    ------
    StorageError
        When the system refuses.
    """
    if not folder.is_dir():
        return
    with storing(folder):
        (folder / _FILE).unlink(missing_ok=True)  # first: it names the other
        _tidy(folder, None)
        if not any(folder.iterdir()):
            folder.rmdir()


def _tensors_file(folder: Path, digest: str) -> Path:
    return folder / f"checkpoint-{digest}.safetensors"


def _tidy(folder: Path, kept: str | None) -> None:
    """Remove all tensors but those of one digest, and what killed writers left."""
    if not folder.is_dir():
        return
    with storing(folder):
        for file in list(folder.iterdir()):
            if _OURS.fullmatch(file.name) and (
                kept is None or file != _tensors_file(folder, kept)
            ):
                file.unlink(missing_ok=True)


def _named_digest(folder: Path) -> str | None:
    """Return the digest of the tensors that are there; None if that is not known."""
    try:
        file = folder / _FILE
        return _read(file.read_text("ascii"), file)[0]
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        return None


def _written(digest: str, about: Mapping[str, Any]) -> str:
    """Return the text of the JSON file: by it, no other text says the same."""
    fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tensors_sha256": digest,
        "about": dict(about),
    }
    own = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    return json.dumps({**fields, "sha256": own}, indent=1) + "\n"


def _read(text: str, file: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the digest of the tensors, and what is said about them."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError("it is no checkpoint of featcache")
    if fields["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{shown(file)} has format version {fields['format_version']}, this "
            f"featcache reads {FORMAT_VERSION}; go on with the featcache that wrote it"
        )
    digest, about = fields["tensors_sha256"], fields["about"]
    if not SHA256.holds(digest) or _written(digest, about) != text:
        raise ValueError("its contents do not match their digest")
    return digest, about


def _read_tensors(file: Path, digest: str) -> dict[str, npt.NDArray[Any]]:
    if not file.is_file():
        raise ValueError(f"{shown(file.name)}, which it names, is not there")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"the contents of {shown(file.name)} do not match their digest"
        )
    try:
        return {name: np.array(tensor) for name, tensor in load(data).items()}
    except SafetensorError as error:
        raise ValueError(f"{shown(file.name)} is no safetensors file") from error


def _damaged(file: Path, error: Exception) -> CheckpointError:
    reason = shown(str(error)) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"there is no {reason}"
    return CheckpointError(
        f"{shown(file)} cannot be gone on from: {reason}; remove it to train from the "
        "start"
    )
