"""Model files: safetensors with the head, its classes, view and backbone identity."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

from featcache.core.catalog import architecture
from featcache.core.checks import SHA256, TEXT, Rule, each, one_of, require
from featcache.core.digests import array_digest
from featcache.core.displays import Displayed, Told, percent, some
from featcache.core.errors import ModelError
from featcache.core.knn import Head
from featcache.core.specs import Precision, ViewSpec
from featcache.core.text import shown
from featcache.store.files import replacing
from featcache.store.heads import pack_head, require_dtype, unpack_head

FORMAT = "featcache-model"
FORMAT_VERSION = 2
_PLAIN = 1  # the version of files that say nothing new: older readers open them

_BACKBONE = "backbone."
_LONGEST_REASON = 200  # characters


@dataclass(frozen=True, eq=False)
class Model(Displayed):
    """A trained head and what it belongs to.

    Parameters
    ----------
    head : LinearHead or KnnHead
        From D features to C scores.
    classes : tuple of str
        C names in label order.
    view : ViewSpec
        The crop that the features were made of.
    backbone : str
        Name in the catalog.
    weights_sha256 : str
        Identity of the backbone's tensors that the head belongs to.
    weights : str
        Where these came from: ``IMAGENET1K_V1``, a file, ``random:0``; for people,
        and to find them again.
    state : mapping of str to ndarray of float32, optional
        The backbone's tensors themselves, when fine-tuning has changed them.
    report : mapping
        What training reached; JSON data.
    precision : {"float32", "bfloat16"}
        Of the backbone's arithmetic when the features were made.
    """

    head: Head
    classes: tuple[str, ...]
    view: ViewSpec
    backbone: str
    weights_sha256: str
    weights: str
    state: Mapping[str, npt.NDArray[np.float32]] | None
    report: Mapping[str, Any]
    precision: Precision = "float32"

    def _told(self) -> Told:
        tuned = "fine-tuned from " if self.fine_tuned else ""
        yield "backbone", f"{self.backbone}, {tuned}{self.weights}"
        yield "view", f"resize {self.view.resize}, crop {self.view.crop}"
        yield "head", self.head
        yield "classes", some(self.classes, len(self.classes))
        yield "val accuracy", _reached(self.report)

    @property
    def fine_tuned(self) -> bool:
        """Whether the file carries a backbone of its own."""
        return self.state is not None


def _reached(report: Mapping[str, Any]) -> str | None:
    """Return the accuracy of a report, which is JSON from whoever wrote the file."""
    match report.get("val_accuracy"), report.get("val_accuracy_interval"):
        case float(share), [float(low), float(high)]:
            return percent(share, (low, high))
        case float(share), _:
            return percent(share)
        case _:
            return None


def save_model(model: Model, path: Path) -> None:
    """Write a model file.

    Parameters
    ----------
    model : Model
        What to write.
    path : Path
        ``.safetensors``; there whole or not at all.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    tensors, described = pack_head(model.head)
    for name, tensor in (model.state or {}).items():
        tensors[_BACKBONE + name] = np.ascontiguousarray(tensor, np.float32)
    description: dict[str, Any] = {
        "classes": list(model.classes),
        "view": asdict(model.view),
        "backbone": model.backbone,
        "weights_sha256": model.weights_sha256,
        "weights": model.weights,
        "precision": model.precision,
        "report": dict(model.report),
        **described,
    }
    # A reader that does not know of what is described would score wrongly.
    version = FORMAT_VERSION if described else _PLAIN
    text = json.dumps(description)
    metadata = {
        "format": FORMAT,
        "format_version": str(version),
        "model": text,
        "sha256": _digest(text, tensors),
    }
    with replacing(path) as temporary:
        # Not by safetensors itself: what it raises on a full disk is no OSError.
        temporary.write_bytes(save(tensors, metadata))


def open_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file.

    Parameters
    ----------
    path : str or path
        As `save_model` wrote it, or the folder of a run.

    Returns
    -------
    Model
        Checked against its digest.

    Raises
    ------
    ModelError
        When it is missing, damaged, or no model of ours.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise ModelError(
            f"no model {shown(path)}; make one with 'featcache fit-head' or "
            "'featcache finetune'"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(metadata, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ModelError:
        raise
    except Exception as error:  # whatever safetensors makes of hostile bytes
        raise ModelError(f"{shown(path)} is no model file: {_reason(error)}") from error
    try:
        if _digest(metadata["model"], tensors) != metadata["sha256"]:
            raise ValueError("its contents do not match their digest")
        return _model(tensors, json.loads(metadata["model"]))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{shown(path)} is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {shown(str(error.args[0]))}"
    return shown(str(error))[:_LONGEST_REASON]


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{shown(path)} is not a model of featcache; as weights of a backbone it "
            "goes to 'featcache extract --weights'"
        )
    version = int(metadata.get("format_version", "0"))
    if version < 1:
        raise ModelError(f"{shown(path)} is damaged: it has no format version")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{shown(path)} has format version {version}, this "
            f"featcache reads up to {FORMAT_VERSION}; upgrade featcache"
        )


def _model(tensors: Mapping[str, npt.NDArray[Any]], fields: Mapping[str, Any]) -> Model:
    state = {
        name.removeprefix(_BACKBONE): tensor
        for name, tensor in tensors.items()
        if name.startswith(_BACKBONE)
    }
    require_dtype(np.float32, *state.values())
    embed_dim = architecture(fields["backbone"]).embed_dim
    model = Model(
        head=unpack_head(tensors, fields, len(fields["classes"]), embed_dim),
        classes=tuple(fields["classes"]),
        view=ViewSpec.from_json(fields["view"]),
        backbone=fields["backbone"],
        weights_sha256=fields["weights_sha256"],
        weights=fields["weights"],
        state=state or None,
        report=fields["report"],
        precision=fields["precision"],
    )
    require(
        model,
        classes=each(TEXT),
        weights_sha256=SHA256,
        weights=TEXT,
        report=Rule("a JSON object", lambda v: isinstance(v, dict)),
        precision=one_of("float32", "bfloat16"),
    )
    return model


def _digest(text: str, tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return one sha256 over all that a model file says."""
    names = sorted(tensors)
    said = json.dumps([text, [[name, tensors[name].shape] for name in names]]).encode()
    values = (tensors[name] for name in names)
    return array_digest(np.frombuffer(said, np.uint8), *values).hex()
