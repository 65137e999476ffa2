"""Where a backbone's weights come from: published, a file, or drawn at random."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.catalog import IMAGENET, Architecture, architecture
from featcache.core.errors import WeightsError
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import Decoder, Exif, ViewSpec
from featcache.core.text import closest, shown
from featcache.stages.weights_files import published_file

if TYPE_CHECKING:
    from featcache.vision.weights import State

RANDOM = "random"
_FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class WeightsSource:
    """Weights that are named and found, but not read yet.

    Parameters
    ----------
    backbone : str
        Name in the catalog.
    name : str
        For people and provenance: ``IMAGENET1K_V1``, ``random:0`` or a file.
    view : ViewSpec
        The validation view of these weights.
    key : str
        Identity of what is read: sha256 of the file, or the seed. Equal keys give
        equal tensors, so that an unchanged cache is recognised without torch.
    file : Path, optional
        None for random weights.
    seed : int
        Of random weights.
    """

    backbone: str
    name: str
    view: ViewSpec
    key: str
    file: Path | None
    seed: int

    def load(self) -> "State":
        """Read or draw the tensors.

        Returns
        -------
        dict of str to tensor of float32
            The backbone's, checked against its architecture.

        Raises
        ------
        WeightsError
            When the file belongs to another network, is broken or holds code.
        """
        from featcache.vision.backbones import checked_state, random_weights
        from featcache.vision.weights import read_weights

        if self.file is None:
            return random_weights(self.backbone, self.seed)
        return checked_state(self.backbone, read_weights(self.file), shown(self.file))


def find_weights(
    backbone: str,
    weights: str | os.PathLike[str] = IMAGENET,
    *,
    exif: Exif = "apply",
    decoder: Decoder = "pillow",
    seed: int = 0,
    progress: Progress = SILENT,
) -> WeightsSource:
    """Find the weights of a backbone, downloading published ones if need be.

    Parameters
    ----------
    backbone : str
        Name in the catalog.
    weights : str or path
        ``imagenet`` (the first published), a torchvision enum name such as
        ``IMAGENET1K_V2``, ``random``, or a ``.pth``/``.safetensors`` file.
    exif : {"apply", "ignore"}
        Goes into the view.
    decoder : {"pillow", "nvjpeg"}
        Goes into the view.
    seed : int
        Of random weights.
    progress : Progress
        Hears of a download.

    Returns
    -------
    WeightsSource
        Found, not read.

    Raises
    ------
    SpecError
        When the backbone is unknown.
    WeightsError
        When the weights are unknown or the file is not there.
    DownloadError
        When published weights cannot be had.
    """
    known = architecture(backbone)
    text = os.fspath(weights)
    if text == RANDOM or text.startswith(f"{RANDOM}:"):
        seed = _seed(text, seed)
        view = ViewSpec.of(known.default_weights, exif, decoder)
        name = f"{RANDOM}:{seed}"
        return WeightsSource(backbone, name, view, name, None, seed)
    if text == IMAGENET or text in known.weights:
        published = known.weights.get(text, known.default_weights)
        file, name = published_file(published, progress=progress), published.name
    else:
        file, name = Path(text), os.path.abspath(text)  # noqa: PTH100 - bytes stay
        if not file.is_file():
            raise WeightsError(_unknown(text, known))
    key = file_sha256(file)
    # A copy of a published file under any name keeps the view of its weights.
    same = [w for w in known.weights.values() if key.startswith(w.sha256_prefix)]
    view = ViewSpec.of(same[0] if same else known.default_weights, exif, decoder)
    return WeightsSource(backbone, name, view, key, file, seed)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file.

    Parameters
    ----------
    path : Path
        Read whole, in pieces.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    WeightsError
        When it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {shown(path)}: {error.strerror}") from None


def _seed(text: str, default: int) -> int:
    digits = text.removeprefix(RANDOM).removeprefix(":")
    if digits and not digits.isdecimal():
        raise WeightsError(f"weights {text!r}: expected random:SEED, such as random:0")
    return int(digits) if digits else default


def _unknown(text: str, known: Architecture) -> str:
    names = ", ".join((IMAGENET, *known.weights, f"{RANDOM}[:SEED]"))
    if text.endswith(_FILE_ENDINGS) or os.sep in text:
        return f"no weights file {shown(text)}; other weights of {known.name}: {names}"
    return (
        f"unknown weights {text!r} for {known.name}{closest(text, known.weights)} "
        f"(known: {names}, or a .pth or .safetensors file)"
    )
