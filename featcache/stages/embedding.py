"""`embed_images`: images of any kind to features, remembered by their bytes."""

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block, plan_blocks
from featcache.core.catalog import DEFAULT_BACKBONE, IMAGENET, architecture
from featcache.core.checks import one_of, require
from featcache.core.errors import (
    BadImage,
    BadImagesError,
    CacheError,
    DataError,
    NumericError,
    StorageError,
)
from featcache.core.heads import Floats
from featcache.core.machine import cores
from featcache.core.specs import Exif, FeatureSpec, Precision
from featcache.core.status import UnusableImageError
from featcache.core.text import shown
from featcache.stages.merging import merge
from featcache.stages.provenance import describe_run
from featcache.stages.sources import WeightsSource, find_weights
from featcache.store.memo import Memo
from featcache.vision.decode import decode_view, read_file
from featcache.vision.images import image_bytes

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor

_KEPT_EVERY = 1024  # images: what an interrupted call loses at most
_MOST_FILES = 16  # of one memo; more are merged into one

OnBad = Literal["stop", "nan"]

_PATHS = (str, bytes, os.PathLike)
_building = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class EmbedSpec:
    """How images become features, and where these are kept."""

    backbone: str = DEFAULT_BACKBONE
    weights: str | os.PathLike[str] = IMAGENET
    precision: Precision = FeatureSpec.precision
    exif: Exif = "apply"
    device: str = "auto"  # auto: CUDA where there is one
    batch_size: int = 0  # images in one forward pass; 0: what suits the device
    workers: int = 0  # threads; 0: one per core
    cache: str | os.PathLike[str] | None = None  # folder of caches; None: keep nothing
    on_error: OnBad = "stop"  # nan: the row of an image that cannot be used

    def __post_init__(self) -> None:
        require(self, on_error=one_of("stop", "nan"))


def embed_images(images: Sequence[object], spec: EmbedSpec) -> Floats:
    """Return the features of images, computing only those that are not known.

    Parameters
    ----------
    images : sequence of path, binary file, PIL.Image.Image or ndarray of uint8
        n images; arrays (h, w), (h, w, 3) or (h, w, 4). A path that stands in it
        several times is read once.
    spec : EmbedSpec
        Backbone, weights and the rest.

    Returns
    -------
    ndarray of float32, shape (n, D)
        In the order of the images.

    Warns
    -----
    UserWarning
        When rows are NaN, for ``on_error="nan"``.

    Raises
    ------
    BadImagesError
        When images cannot be used; the features of all others are kept in the cache.
    DataError
        When something is no image at all.
    FeatcacheError
        For everything else that a user can mend.
    """
    stamp = _stamp(spec.weights)
    source = _source(spec.backbone, os.fspath(spec.weights), spec.exif, stamp)
    memo = None
    if spec.cache is not None:
        memo = Memo(Path(spec.cache), _identity(source, spec.precision))
    try:
        return _Embedding(spec, source, memo).run(images)
    finally:
        if memo is not None:
            memo.close()
            _merge_many(memo)


def _stamp(weights: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return what changes with a weights file; nothing for other weights."""
    try:
        found = os.stat(weights)  # noqa: PTH116 - its name may be that of no file
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=32)
def _source(
    backbone: str, weights: str, exif: Exif, stamp: tuple[int, ...]
) -> WeightsSource:
    """Find weights; to hash a file takes longer than a call of few known images."""
    del stamp
    return find_weights(backbone, weights, exif=exif)


@lru_cache(maxsize=32)
def _identity(source: WeightsSource, precision: Precision) -> FeatureSpec:
    from featcache.vision.weights import state_sha256

    return FeatureSpec(
        backbone=source.backbone,
        weights_sha256=state_sha256(source.load()),
        view=source.view,
        precision=precision,
    )


# One network stays in memory: a call of few images would take longer to build it.
@lru_cache(maxsize=1)
def _extractor(
    source: WeightsSource, device: str, precision: Precision, batch_size: int
) -> "Extractor":
    from featcache.vision.assembly import assemble
    from featcache.vision.backbones import Backbone

    return assemble(
        Backbone(source.backbone, source.load()),
        source.view,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )


@dataclass(eq=False)
class _Part:
    """Some of the images, while they become features (m, D)."""

    images: Sequence[object]
    features: Floats
    digests: npt.NDArray[np.uint8]  # (m, 32)
    computed: npt.NDArray[np.bool_]  # (m,), false where a feature was known
    reasons: dict[int, str]  # why a row could not be used


@dataclass(frozen=True, eq=False)
class _Embedding:
    spec: EmbedSpec
    source: WeightsSource
    memo: Memo | None

    def run(self, images: Sequence[object]) -> Floats:
        """Return the features of all images."""
        first, inverse = _distinct(images)
        dim = architecture(self.spec.backbone).embed_dim
        features = np.full((len(first), dim), np.nan, np.float32)
        bad: list[BadImage] = []
        for start in range(0, len(first), _KEPT_EVERY):
            rows = first[start : start + _KEPT_EVERY]
            part = _Part(
                [images[row] for row in rows],
                features[start : start + len(rows)],
                np.zeros((len(rows), 32), np.uint8),
                np.zeros(len(rows), bool),
                {},
            )
            self._fill(part, rows)
            self._keep(part)
            bad += [
                BadImage(_name(part.images[i], rows[i]), reason)
                for i, reason in sorted(part.reasons.items())
            ]
        if bad:
            error = _bad_images(bad, len(first))
            if self.spec.on_error == "stop":
                raise error
            warnings.warn(f"rows are NaN: {error}", stacklevel=4)
        return features if len(first) == len(images) else features[inverse]

    def _fill(self, part: _Part, numbers: Sequence[int]) -> None:
        from featcache.vision.forward import pick_device
        from featcache.vision.pipeline import run_blocks

        def work(block: Block, alive: Callable[[], None]) -> None:
            batch = []
            for row in range(block.start, block.stop):
                alive()
                try:
                    pixels = self._pixels(part, row)
                except UnusableImageError as error:
                    part.reasons[row] = str(error)
                except DataError as error:
                    raise DataError(f"image {numbers[row]}: {error}") from None
                else:
                    batch += [(row, pixels)] if pixels is not None else []
            if batch:
                self._forward(part, batch)

        on_cpu = pick_device(self.spec.device).type == "cpu"
        size = self.spec.batch_size or (8 if on_cpu else 64)
        blocks = plan_blocks(len(part.images), size)
        run_blocks(blocks, work, self.spec.workers or cores())

    def _pixels(self, part: _Part, row: int) -> npt.NDArray[np.uint8] | None:
        image = part.images[row]
        if isinstance(image, _PATHS):
            data = read_file(Path(os.fsdecode(image)))
        else:
            data = image_bytes(image, self.spec.exif)
        if self.memo is not None:
            digest = hashlib.sha256(data).digest()
            part.digests[row] = np.frombuffer(digest, np.uint8)
            known = self.memo.lookup(digest)
            if known is not None:
                part.features[row] = known
                return None
        return decode_view(data, self.source.view)

    def _forward(
        self, part: _Part, batch: Sequence[tuple[int, npt.NDArray[np.uint8]]]
    ) -> None:
        spec, rows = self.spec, [row for row, _ in batch]
        with _building:  # the first worker that needs it; the others wait
            extractor = _extractor(
                self.source, spec.device, spec.precision, spec.batch_size
            )
        features = extractor.embed(np.stack([pixels for _, pixels in batch]))
        if not np.isfinite(features).all():
            raise NumericError("features are not finite; check the weights")
        part.features[rows] = features
        part.computed[rows] = True

    def _keep(self, part: _Part) -> None:
        new = part.computed
        if self.memo is None or not new.any():
            return
        weights = {"source": self.source.name, "key": self.source.key}
        provenance = describe_run("began", weights=weights)
        self.memo.add(part.features[new], part.digests[new], provenance)


def _distinct(images: Sequence[object]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Return the rows of distinct paths (m,), and which of these each image is (n,)."""
    first: dict[object, int] = {}
    inverse = np.empty(len(images), np.int64)
    rows: list[int] = []
    for row, image in enumerate(images):
        key: object = os.fsencode(image) if isinstance(image, _PATHS) else row
        if key not in first:
            first[key] = len(rows)
            rows.append(row)
        inverse[row] = first[key]
    return rows, inverse


def _name(image: object, row: int) -> str:
    return shown(image) if isinstance(image, _PATHS) else f"image {row}"


def _bad_images(bad: Sequence[BadImage], images: int) -> BadImagesError:
    others = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
    return BadImagesError(
        f"{len(bad):,} of {images:,} images cannot be used ({bad[0].path}: "
        f"{bad[0].reason}{others}); mend them or leave them out",
        bad,
    )


def _merge_many(memo: Memo) -> None:
    """Join the files of a memo; what cannot be done now is left for another time."""
    files = memo.files()
    if len(files) <= _MOST_FILES:
        return
    with suppress(CacheError, StorageError, OSError):
        merge(files, memo.new_file())
        for file in files:
            file.unlink(missing_ok=True)
