"""The steps of one extraction: decide, create, fill, publish."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.blocks import Block, plan_blocks
from featcache.core.clock import Clock
from featcache.core.errors import CacheError, DataError, Interrupted, bad_images_error
from featcache.core.layers import Layer
from featcache.core.manifest import Manifest
from featcache.core.progress import Progress
from featcache.core.shards import Shard, ShardRecord
from featcache.core.sources import Source
from featcache.core.specs import (
    AugmentSpec,
    ExtractSpec,
    FeatureDtype,
    FeatureSpec,
    Precision,
)
from featcache.core.text import listed, shown
from featcache.stages.devices import beside_others
from featcache.stages.outcome import bad_images, tell_size
from featcache.stages.plans import Found, decide, examine, mismatch, usable_rows
from featcache.stages.provenance import describe_run
from featcache.stages.sources import WeightsSource
from featcache.store.files import storing
from featcache.store.header import read_header
from featcache.store.ledger import Ledger, ledger_path
from featcache.store.lock import writing
from featcache.store.reader import FeatureCache
from featcache.store.reuse import Reuse
from featcache.store.writer import CacheWriter, create, old_path, partial_path

if TYPE_CHECKING:
    from featcache.stages.tasks import Engine
    from featcache.vision.weights import State


@dataclass(eq=False)
class Job:
    """One extraction: what is wanted, and the steps to get it."""

    images: Source
    manifest: Manifest
    source: WeightsSource
    target: Path
    how: ExtractSpec
    layer: Layer
    precision: Precision
    dtype: FeatureDtype
    views: int
    augment: AugmentSpec
    progress: Progress
    clock: Clock
    shard: Shard | None = None  # a part of the manifest, which is cut to it
    state: "State | None" = None  # the backbone's tensors, once they are read
    built: "Engine | None" = None  # once something has to be computed
    working: float = 0.0  # seconds from the first image to the last

    def __post_init__(self) -> None:
        self._cut()

    def _cut(self) -> None:
        """Leave of the whole manifest what is to be done here."""
        self.record: ShardRecord | None = None
        if self.shard is not None:
            self.record = ShardRecord.of(self.shard, self.manifest)
            self.manifest = self.shard.take(self.manifest)

    @property
    def _partial(self) -> Path:
        return partial_path(self.target)

    def run(self) -> int:
        """Bring the target up to date; return how many images were computed."""
        with self.clock.stage("start"):  # torch is imported where weights are unknown
            wanted = self._wanted()
        found = self._examine(self.target, wanted)
        if found.state == "same":
            return self._reuse(found)
        with self._alone(found.cache):
            # Looked at again: somebody may have finished before the lock was ours.
            found = self._examine(self.target, wanted)
            begun = self._examine(self._partial, wanted, lenient=True)
            done = min(len(self.manifest), max(map(usable_rows, (found, begun))))
            match decide(found.state, begun.state, overwrite=self.how.overwrite):
                case "reuse":
                    return self._reuse(found)
                case "refuse cache":
                    raise mismatch(read_header(self.target), wanted)
                case "refuse partial":
                    raise mismatch(read_header(self._partial), wanted)
                case "resume":
                    older = self._examine(old_path(self.target), wanted, lenient=True)
                    with self._engine(wanted, done) as engine:
                        return self._fill(engine, [found, older], begun.cache)
                case "extract":
                    tell_size(wanted, len(self.manifest), self.progress)
                    with self._engine(
                        wanted, done
                    ) as engine:  # before anything is written
                        sources = [found, begun, self._set_aside(begun, wanted)]
                        self._begin(wanted, engine)
                        return self._fill(engine, sources, None)

    @contextmanager
    def _alone(self, mapped: FeatureCache | None) -> Iterator[None]:
        """Be the only writer; after a wait for another one, scan again."""
        if mapped is not None:
            mapped.close()  # Windows replaces no file that is mapped
        wait, progress = self.how.wait, self.progress
        with writing(self.target, wait=wait, progress=progress) as waited:
            if waited:
                self.manifest = self.images.scan()
                self._cut()
            yield

    def _examine(
        self, path: Path, wanted: FeatureSpec, *, lenient: bool = False
    ) -> Found:
        lenient = lenient or self.how.overwrite
        found = examine(
            path, wanted, self.manifest, rehash=self.how.rehash, lenient=lenient
        )
        if found.state == "same" and found.cache is not None:
            # Rows of another part may be the same, but its whole is not: parts must
            # be of one state of the folder.
            recorded = ShardRecord.read(found.cache.provenance)
            return found if recorded == self.record else Found("changed", found.cache)
        return found

    def _wanted(self) -> FeatureSpec:
        """Return the identity of the features asked for."""
        return FeatureSpec(
            backbone=self.source.backbone,
            weights_sha256=self._weights_sha256(),
            view=self.source.view,
            layer=self.layer,
            precision=self.precision,
            dtype=self.dtype,
            views=self.views,
            augment=self.augment,
        )

    def _weights_sha256(self) -> str:
        """Return the identity of the weights, without torch where it is known."""
        for path in (self.target, self._partial):
            with suppress(CacheError):
                header = read_header(path)
                recorded = header.provenance.get("weights", {})
                same_backbone = header.spec.backbone == self.source.backbone
                if same_backbone and recorded.get("key") == self.source.key:
                    return header.spec.weights_sha256
        from featcache.vision.weights import state_sha256

        return state_sha256(self._tensors())

    def _tensors(self) -> "State":
        if self.state is None:
            self.state = self.source.load()
        return self.state

    def _give_away(self) -> "State | None":
        """Return the tensors, if they have been read, and keep them no longer."""
        given, self.state = self.state, None
        return given

    def _reuse(self, found: Found) -> int:
        """Take the complete cache as it is; return how many images were computed."""
        assert found.cache is not None
        bad = bad_images(found.cache)
        if bad and self.how.on_error == "stop":
            raise bad_images_error(bad, len(self.manifest))
        return 0

    def _set_aside(self, begun: Found, wanted: FeatureSpec) -> Found:
        """Keep an unfinished cache of the folder's earlier state as a source."""
        old = old_path(self.target)
        older = self._examine(old, wanted, lenient=True)
        if begun.state == "changed" and usable_rows(begun) >= usable_rows(older):
            with storing(old):
                self._partial.replace(old)
        return older

    def _begin(self, wanted: FeatureSpec, engine: "Engine") -> None:
        """Create the unfinished cache, with all of its space."""
        provenance = describe_run(
            "began",
            data=shown(self.images.address),
            weights={"source": self.source.name, "key": self.source.key},
            **({} if self.record is None else {"shard": self.record.to_json()}),
            **engine.pieces,
            device=self.how.device,
            batch_size=engine.batch_size,
            workers=engine.threads,
        )
        columns = self.manifest.columns()
        create(self._partial, wanted, columns, wanted.embed_dim, provenance)

    def _fill(
        self, engine: "Engine", found: Sequence[Found], begun: FeatureCache | None
    ) -> int:
        """Compute what is missing and give the cache its final name."""
        from featcache.stages.filling import Filler, Tally, unfinished

        usable = [f.cache for f in found if f.state in ("same", "changed")]
        sources = [cache for cache in usable if cache is not None]
        reuse = Reuse(self.manifest, sources, rehash=self.how.rehash)
        tally = Tally(self.manifest, self.progress)
        ledger = Ledger(ledger_path(self.target))
        with CacheWriter(self._partial) as writer, ledger, engine.noting(ledger):
            blocks = plan_blocks(len(self.manifest), writer.header.block_rows)
            todo = unfinished(blocks, begun)
            filler = Filler(self.manifest, writer, engine, reuse, begun, tally, ledger)
            with self._reporting(todo):
                engine.run(todo, filler)
            self._require_unchanged()
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

    def _require_unchanged(self) -> None:
        """Refuse features of bytes whose labels were read before they changed."""
        from featcache.vision.reading import changed_files

        changed = changed_files(self.manifest)
        if changed:
            raise DataError(
                f"{listed(map(shown, changed), 3)} changed while images were read, "
                "whose labels may be those of others now; run the same command again: "
                "what is known is not computed again"
            )

    @contextmanager
    def _reporting(self, todo: Sequence[Block]) -> Iterator[None]:
        """Show progress; on Ctrl-C say what is kept."""
        images = len(self.manifest)
        before = images - sum(block.size for block in todo)
        self.progress.begin("extract", images, unit="image", done=before)
        began = time.perf_counter()
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; what is done is kept in {shown(self._partial)}: run the "
                "same command again to go on"
            ) from None
        finally:
            self.working = time.perf_counter() - began
            self.progress.end()

    @contextmanager
    def _engine(self, wanted: FeatureSpec, done: int) -> Iterator["Engine"]:
        """Make ready what computes."""
        with self.clock.stage("start"):
            from featcache.stages.staffing import Staff
            from featcache.stages.tasks import Setting

        how = self.how if self.shard is None else beside_others(self.how)
        setting = Setting(
            source=self.source,
            precision=self.precision,
            batch_size=how.batch_size,
            workers=how.workers,
            expected=len(self.manifest) - done,
            augment=wanted.augment,
            layer=wanted.layer,
        )
        staff = Staff(how, setting, wanted, self.clock, self.progress)
        with staff.engine(self._give_away, self.manifest) as engine:
            self.built = engine
            yield engine
