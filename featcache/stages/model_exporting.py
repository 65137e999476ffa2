"""`export_model`: a model as files that run without featcache."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from featcache.core.errors import ModelError, SpecError, StorageError
from featcache.core.heads import LinearHead
from featcache.core.knn import Head
from featcache.core.libraries import optional
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import closest, shown
from featcache.stages.model_backbones import model_backbone
from featcache.store.artifacts import Model, open_model
from featcache.store.files import replacing, storing, sweep
from featcache.store.lock import writing

ModelTarget = Literal["torch", "onnx", "pt2"]

FORMAT = "featcache-portable"
FORMAT_VERSION = 1

_REMEDY = "wait for it to end, or choose another place with --out"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class _Format:
    """One kind of file: the endings of its name, the usual one first."""

    endings: tuple[str, ...]
    library: str = ""  # that it needs beside those that are always there


MODEL_FORMATS: Mapping[str, _Format] = {
    "torch": _Format((".pth", ".pt", ".safetensors")),
    "onnx": _Format((".onnx",), library="onnxscript"),
    "pt2": _Format((".pt2",)),
}


@dataclass(frozen=True, kw_only=True)
class ModelExportReport(Report):
    """What `export_model` wrote."""

    source: Path
    to: str
    out: Path
    about: Path  # the JSON beside it: classes, view, backbone, input and output
    backbone: str
    head: str  # linear, l2 or knn
    classes: int
    bytes: int  # of `out`
    sha256: str  # of `out`; also in `about`
    seconds: float


def export_model(
    model: str | os.PathLike[str],
    to: ModelTarget,
    *,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> ModelExportReport:
    """Write a model as a file that runs without featcache, and JSON about it.

    The network takes normalised images, (n, 3, crop, crop) float32, and gives scores,
    (n, C), in float32; their softmax are the probabilities. The JSON
    is called ``OUT.json`` and holds the class names and the view that makes such
    images; it is there only if the whole export is.

    Parameters
    ----------
    model : str or path
        A model file, or the folder of a run.
    to : {"torch", "onnx", "pt2"}
        A plain torchvision state dict, an ONNX model, or a program of
        ``torch.export``. All but a ``.pth`` have the JSON inside as well, as
        ``featcache.json``.
    out : str or path, optional
        The file to make; without it, beside the model and named after it. A state
        dict may be a ``.safetensors`` file.
    weights : str or path, optional
        Where the backbone's weights are now, if not where the model was trained.
    overwrite : bool
        Whether files of that name are replaced.
    progress : Progress
        Hears of the steps.

    Returns
    -------
    ModelExportReport
        What was written, and where.

    Raises
    ------
    SpecError
        When there is no such format, or the file's name does not fit it.
    ModelError
        When it is no model, the weights found are not those that it belongs to, or
        the format has no place for its head.
    DependencyError
        When onnxscript is needed and not installed.
    StorageError
        When the place is taken, or cannot be written.
    """
    began = time.perf_counter()
    kind = _format(to)
    source = _model_file(Path(model), to)
    target = source.with_suffix(kind.endings[0]) if out is None else Path(out)
    about = target.with_name(f"{target.name}.json")
    _check_name(target, to, kind)
    opened = open_model(source)
    head = _head_name(opened.head)
    _check_head(opened, head, to)
    if kind.library:
        optional(kind.library, f"--to {to}", extra=to)
    with writing(target, remedy=_REMEDY):
        _require_free(source, target, about, overwrite=overwrite)
        with storing(target):
            sweep(target)
            sweep(about)
        described = _described(opened, head)
        data = _converted(opened, to, target, described, weights, progress)
        digest = sha256(data).hexdigest()
        text = json.dumps(
            {**described, "file": target.name, "sha256": digest}, indent=2
        )
        with replacing(about) as beside:
            beside.write_text(text + "\n", "utf-8")
            with replacing(target) as temporary:
                temporary.write_bytes(data)
    return ModelExportReport(
        source=source,
        to=to,
        out=target,
        about=about,
        backbone=opened.backbone,
        head=head,
        classes=len(opened.classes),
        bytes=len(data),
        sha256=digest,
        seconds=round(time.perf_counter() - began, 3),
    )


def _converted(
    model: Model,
    to: str,
    target: Path,
    described: Mapping[str, Any],
    weights: str | os.PathLike[str] | None,
    progress: Progress,
) -> bytes:
    from featcache.vision import portable

    if model.precision != "float32":
        progress.say(
            f"this model was made with {model.precision} arithmetic; the exported "
            "network computes in float32, whose scores differ in the third digit"
        )
    network = portable.portable_network(
        model_backbone(model, weights, progress), model.head
    )
    text = json.dumps(described)
    ways: Mapping[str, Callable[[], bytes]] = {
        ".safetensors": lambda: portable.safetensors_bytes(network, text),
        ".onnx": lambda: portable.onnx_bytes(network, model.view.crop, text),
        ".pt2": lambda: portable.pt2_bytes(network, model.view.crop, text),
    }
    progress.begin(f"export to {to}", 1, unit="file")
    try:
        way = ways.get(target.suffix.lower(), lambda: portable.torch_bytes(network))
        data = way()
        progress.advance(1)
        return data
    finally:
        progress.end()


def _described(model: Model, head: str) -> dict[str, Any]:
    """Return what one needs to know to use the network, as JSON data."""
    from featcache.vision.portable import INPUT, OUTPUT

    crop = model.view.crop
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "backbone": model.backbone,
        "head": head,
        "classes": list(model.classes),
        "view": model.view.to_json(),
        "input": {"name": INPUT, "shape": ["n", 3, crop, crop], "dtype": "float32"},
        "output": {
            "name": OUTPUT,
            "shape": ["n", len(model.classes)],
            "dtype": "float32",
            "probabilities": "softmax",
        },
        "weights_sha256": model.weights_sha256,
    }


def _format(to: str) -> _Format:
    if to not in MODEL_FORMATS:
        raise SpecError(
            f"unknown format {to!r}{closest(to, MODEL_FORMATS)} "
            f"(known for models: {', '.join(MODEL_FORMATS)})"
        )
    return MODEL_FORMATS[to]


def _model_file(path: Path, to: str) -> Path:
    """Return the model's file; a cache is another kind of thing to export."""
    if path.is_dir():
        return path / "model.safetensors"
    if path.is_file():
        with storing(path), path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start == _HDF5:
            raise SpecError(
                f"{shown(path)} is a cache, and --to {to} takes a model that "
                "'featcache fit-head' or 'featcache finetune' made; a cache goes to "
                "npy, parquet or csv"
            )
    return path


def _check_name(target: Path, to: str, kind: _Format) -> None:
    if target.is_dir():
        raise StorageError(
            f"{shown(target)} is a folder; expected the name of a file in it, such as "
            f"{shown(target / f'model{kind.endings[0]}')}"
        )
    if target.suffix.lower() not in kind.endings:
        raise SpecError(
            f"--to {to} makes a file whose name ends in {' or '.join(kind.endings)}, "
            f"got {shown(target)}"
        )


def _head_name(head: Head) -> str:
    if not isinstance(head, LinearHead):
        return "knn"
    return "l2" if head.normalize else "linear"


def _check_head(model: Model, head: str, to: str) -> None:
    reasons = {
        "l2": "its head divides features by their norm (--standardize l2)",
        "knn": "its head is votes of nearest neighbours (--solver knn)",
    }
    if to == "torch" and head in reasons:
        raise ModelError(
            f"{reasons[head]}, and the fc of a plain {model.backbone} is a linear "
            "layer; use --to onnx or --to pt2, which hold any head, or fit another one"
        )


def _require_free(source: Path, target: Path, about: Path, *, overwrite: bool) -> None:
    if target.exists() and target.samefile(source):
        raise StorageError(
            f"{shown(target)} is the model itself; choose another place with --out"
        )
    for path in (target, about):
        if os.path.lexists(path) and not overwrite:
            raise StorageError(
                f"{shown(path)} is there already; choose another place with --out, or "
                "replace it with --overwrite"
            )
