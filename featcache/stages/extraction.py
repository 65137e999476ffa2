"""`extract`: a folder of images through a frozen backbone into one cache file."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.blocks import Block, plan_blocks
from featcache.core.catalog import DEFAULT_BACKBONE, IMAGENET, architecture
from featcache.core.clock import Clock
from featcache.core.errors import CacheError, Interrupted, bad_images_error
from featcache.core.machine import cores
from featcache.core.manifest import Manifest
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import (
    Exif,
    ExtractSpec,
    FeatureDtype,
    FeatureSpec,
    Precision,
)
from featcache.core.text import shown
from featcache.core.timing import START, WORK
from featcache.stages.datasets import resolve_data
from featcache.stages.outcome import (
    bad_images,
    outcome,
    tell_duplicates,
    tell_pieces,
    timing,
)
from featcache.stages.plans import Found, decide, examine, mismatch, usable_rows
from featcache.stages.provenance import describe_run
from featcache.stages.sources import WeightsSource, find_weights
from featcache.store.files import require_file_name, storing
from featcache.store.header import read_header
from featcache.store.ledger import Ledger, ledger_path
from featcache.store.lock import writing
from featcache.store.reader import FeatureCache, open_cache
from featcache.store.reuse import Reuse
from featcache.store.writer import CacheWriter, create, old_path, partial_path
from featcache.vision.scan import scan

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor
    from featcache.vision.weights import State

CACHE_FOLDER = Path("cache")


def extract(  # noqa: PLR0913 - the command's options
    data: str | os.PathLike[str] = "hymenoptera",
    spec: ExtractSpec | None = None,
    *,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | os.PathLike[str] = IMAGENET,
    cache: str | os.PathLike[str] | None = None,
    precision: Precision = FeatureSpec.precision,
    dtype: FeatureDtype = FeatureSpec.dtype,
    exif: Exif = "apply",
    progress: Progress = SILENT,
) -> FeatureCache:
    """Run a frozen backbone once over every image and keep the features.

    Work that was done before is found again: an interrupted extraction goes on, an
    unchanged folder computes nothing, a changed one computes only new images.

    Parameters
    ----------
    data : str or path
        A folder of class folders, with or without ``train``/``val``/``test``; or a
        known data set: ``hymenoptera``, ``hotdog``, ``digits``.
    spec : ExtractSpec, optional
        How to compute: device, threads, what to do with bad images.
    backbone : str
        A torchvision ResNet, such as ``resnet50``.
    weights : str or path
        ``imagenet``, an enum name such as ``IMAGENET1K_V2``, ``random:SEED``, or a
        ``.pth`` or ``.safetensors`` file.
    cache : str or path, optional
        The file to make; ``cache/DATA-BACKBONE.h5`` without it.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    dtype : {"float32", "float16"}
        Of the stored features.
    exif : {"apply", "ignore"}
        Whether images are turned as their camera says.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    FeatureCache
        Complete; its ``report`` says what was computed and what was reused.

    Raises
    ------
    BadImagesError
        When images cannot be used and ``spec.on_error`` is ``stop``; all others are
        computed and kept for the next run.
    CacheMismatchError
        When the file holds features of other settings.
    CacheBusyError
        When another process is writing the file and ``spec.wait`` is off.
    FeatcacheError
        For everything else that a user can mend.
    Interrupted
        After Ctrl-C, when what is done has been kept.
    """
    began, clock = time.perf_counter(), Clock(*START, *WORK)
    architecture(backbone)  # a slip of the keys shows before anything is downloaded
    folder = resolve_data(data, progress=progress)
    with clock.stage("scan"):
        manifest = scan(folder)
    progress.say(manifest.describe())
    source = find_weights(backbone, weights, exif=exif, progress=progress)
    target = default_cache(manifest.root, backbone) if cache is None else Path(cache)
    require_file_name(target)
    how = spec or ExtractSpec()
    job = _Job(manifest, source, target, how, precision, dtype, progress, clock)
    computed = job.run()
    result = open_cache(target)
    result.report = outcome(
        result,
        timing=timing(job.built, clock, images=computed, elapsed=job.working),
        pieces=job.built.pieces if job.built else {},
        duplicates=tell_duplicates(result, progress),
        seconds=time.perf_counter() - began,
    )
    return result


def default_cache(data: Path, backbone: str) -> Path:
    """Return where the cache of a folder goes.

    Parameters
    ----------
    data : Path
        The data folder.
    backbone : str
        Name in the catalog.

    Returns
    -------
    Path
        ``cache/DATA-BACKBONE.h5``.
    """
    return CACHE_FOLDER / f"{data.resolve().name}-{backbone}.h5"


@dataclass(eq=False)
class _Job:
    """One extraction: what is wanted, and the steps to get it."""

    manifest: Manifest
    source: WeightsSource
    target: Path
    how: ExtractSpec
    precision: Precision
    dtype: FeatureDtype
    progress: Progress
    clock: Clock
    state: "State | None" = None  # the backbone's tensors, once they are read
    built: "Extractor | None" = None  # once something has to be computed
    working: float = 0.0  # seconds from the first image to the last

    @property
    def partial(self) -> Path:
        return partial_path(self.target)

    def run(self) -> int:
        """Bring the target up to date; return how many images were computed."""
        wanted = self.wanted()
        found = self.examine(self.target, wanted)
        if found.state == "same":
            return self.reuse(found)
        with self.alone(found.cache):
            # Looked at again: somebody may have finished before the lock was ours.
            found = self.examine(self.target, wanted)
            begun = self.examine(self.partial, wanted, lenient=True)
            match decide(found.state, begun.state, overwrite=self.how.overwrite):
                case "reuse":
                    return self.reuse(found)
                case "refuse cache":
                    raise mismatch(read_header(self.target), wanted)
                case "refuse partial":
                    raise mismatch(read_header(self.partial), wanted)
                case "resume":
                    older = self.examine(old_path(self.target), wanted, lenient=True)
                    return self.fill(self.extractor(), [found, older], begun.cache)
                case "extract":
                    extractor = self.extractor()  # before anything is written
                    sources = [found, begun, self.set_aside(begun, wanted)]
                    self.begin(wanted, extractor)
                    return self.fill(extractor, sources, None)

    @contextmanager
    def alone(self, mapped: FeatureCache | None) -> Iterator[None]:
        """Be the only writer; after a wait for another one, scan the folder again."""
        if mapped is not None:
            mapped.close()  # Windows replaces no file that is mapped
        wait, progress = self.how.wait, self.progress
        with writing(self.target, wait=wait, progress=progress) as waited:
            if waited:
                self.manifest = scan(self.manifest.root)
            yield

    def examine(
        self, path: Path, wanted: FeatureSpec, *, lenient: bool = False
    ) -> Found:
        lenient = lenient or self.how.overwrite
        return examine(
            path, wanted, self.manifest, rehash=self.how.rehash, lenient=lenient
        )

    def wanted(self) -> FeatureSpec:
        """Return the identity of the features asked for."""
        return FeatureSpec(
            backbone=self.source.backbone,
            weights_sha256=self.weights_sha256(),
            view=self.source.view,
            precision=self.precision,
            dtype=self.dtype,
        )

    def weights_sha256(self) -> str:
        """Return the identity of the weights, without torch where it is known."""
        for path in (self.target, self.partial):
            with suppress(CacheError):
                header = read_header(path)
                recorded = header.provenance.get("weights", {})
                same_backbone = header.spec.backbone == self.source.backbone
                if same_backbone and recorded.get("key") == self.source.key:
                    return header.spec.weights_sha256
        from featcache.vision.weights import state_sha256

        return state_sha256(self.tensors())

    def tensors(self) -> "State":
        if self.state is None:
            self.state = self.source.load()
        return self.state

    def reuse(self, found: Found) -> int:
        """Take the complete cache as it is; return how many images were computed."""
        assert found.cache is not None
        bad = bad_images(found.cache)
        if bad and self.how.on_error == "stop":
            raise bad_images_error(bad, len(self.manifest))
        return 0

    def set_aside(self, begun: Found, wanted: FeatureSpec) -> Found:
        """Keep an unfinished cache of the folder's earlier state as a source."""
        old = old_path(self.target)
        older = self.examine(old, wanted, lenient=True)
        if begun.state == "changed" and usable_rows(begun) >= usable_rows(older):
            with storing(old):
                self.partial.replace(old)
        return older

    def begin(self, wanted: FeatureSpec, extractor: "Extractor") -> None:
        """Create the unfinished cache, with all of its space."""
        provenance = describe_run(
            "began",
            data=shown(self.manifest.root.absolute()),
            weights={"source": self.source.name, "key": self.source.key},
            **extractor.pieces,
            device=self.how.device,
            batch_size=extractor.batch_size,
            workers=self.workers(),
        )
        columns = self.manifest.columns()
        embed_dim = architecture(self.source.backbone).embed_dim
        create(self.partial, wanted, columns, embed_dim, provenance)

    def fill(
        self,
        extractor: "Extractor",
        found: Sequence[Found],
        begun: FeatureCache | None,
    ) -> int:
        """Compute what is missing and give the cache its final name."""
        from featcache.stages.filling import Filler, Tally, unfinished
        from featcache.vision.pipeline import run_blocks

        usable = [f.cache for f in found if f.state in ("same", "changed")]
        sources = [cache for cache in usable if cache is not None]
        reuse = Reuse(self.manifest, sources, rehash=self.how.rehash)
        tally = Tally(self.manifest, self.progress)
        ledger = Ledger(ledger_path(self.target))
        with CacheWriter(self.partial) as writer, ledger:
            blocks = plan_blocks(len(self.manifest), writer.header.block_rows)
            todo = unfinished(blocks, begun)
            filler = Filler(
                self.manifest, writer, extractor, reuse, begun, tally, ledger
            )
            with self.reporting(todo):
                run_blocks(todo, filler, self.workers(), filler.watch)
            if tally.bad and self.how.on_error == "stop":
                raise bad_images_error(tally.bad, len(self.manifest))
            if len(tally.bad) == len(self.manifest):
                raise bad_images_error(tally.bad, len(self.manifest))
            for cache in (*sources, begun):
                if cache is not None:
                    cache.close()  # Windows replaces no file that is mapped
            writer.finish(self.target)
        old_path(self.target).unlink(missing_ok=True)
        return tally.computed

    @contextmanager
    def reporting(self, todo: Sequence[Block]) -> Iterator[None]:
        """Show progress; on Ctrl-C say what is kept."""
        images = len(self.manifest)
        before = images - sum(block.size for block in todo)
        self.progress.begin("extract", images, unit="image", done=before)
        began = time.perf_counter()
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; what is done is kept in {shown(self.partial)}: run the same "
                "command again to go on"
            ) from None
        finally:
            self.working = time.perf_counter() - began
            self.progress.end()

    def extractor(self) -> "Extractor":
        from featcache.vision.assembly import assemble
        from featcache.vision.backbones import Backbone

        with self.clock.stage("start"):
            extractor = assemble(
                Backbone(self.source.backbone, self.tensors()),
                self.source.view,
                device=self.how.device,
                precision=self.precision,
                batch_size=self.how.batch_size,
                clock=self.clock,
            )
        tell_pieces(extractor, self.workers(), self.progress)
        self.built = extractor
        return extractor

    def workers(self) -> int:
        return self.how.workers or cores()
