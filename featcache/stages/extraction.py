"""`extract`: a folder of images through a frozen backbone into one cache file."""

import os
import time
from pathlib import Path

from featcache.core.catalog import DEFAULT_BACKBONE, IMAGENET, architecture
from featcache.core.clock import Clock
from featcache.core.layers import POOLED, Layer, default_dtype, require_layer
from featcache.core.places import place_of
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import (
    AugmentSpec,
    Decoder,
    Exif,
    ExtractSpec,
    FeatureDtype,
    FeatureSpec,
    Precision,
)
from featcache.core.text import plural
from featcache.core.timing import START, WORK
from featcache.core.view_specs import check_views
from featcache.stages.datasets import data_source
from featcache.stages.extraction_job import Job
from featcache.stages.outcome import outcome, tell_duplicates, timing
from featcache.stages.sources import find_weights
from featcache.store.files import require_file_name
from featcache.store.reader import FeatureCache, open_cache

CACHE_FOLDER = Path("cache")


def extract(  # noqa: PLR0913 - the command's options
    data: str | os.PathLike[str] = "hymenoptera",
    spec: ExtractSpec | None = None,
    *,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | os.PathLike[str] = IMAGENET,
    cache: str | os.PathLike[str] | None = None,
    layer: Layer = FeatureSpec.layer,
    precision: Precision = FeatureSpec.precision,
    dtype: FeatureDtype | None = None,
    exif: Exif = "apply",
    decoder: Decoder = "pillow",
    views: int = FeatureSpec.views,
    augment: AugmentSpec = FeatureSpec.augment,
    shard: str | None = None,
    progress: Progress = SILENT,
) -> FeatureCache:
    """Run a frozen backbone once over every image and keep the features.

    Work that was done before is found again: an interrupted extraction goes on, an
    unchanged folder computes nothing, a changed one computes only new images.

    Parameters
    ----------
    data : str or path
        A folder of class folders, with or without ``train``/``val``/``test``; a
        ``.csv``, ``.tsv`` or ``.jsonl`` that lists image files and their labels; tar
        shards, such as ``shards/{000..099}.tar``; Parquet or Arrow files; what Hugging
        Face's ``datasets`` saved; or a known data set: ``hymenoptera``, ``hotdog``,
        ``digits``.
    spec : ExtractSpec, optional
        How to compute: device, threads, what to do with bad images.
    backbone : str
        A torchvision ResNet, such as ``resnet50``.
    weights : str or path
        ``imagenet``, an enum name such as ``IMAGENET1K_V2``, ``random:SEED``, or a
        ``.pth`` or ``.safetensors`` file.
    cache : str or path, optional
        The file to make; without it ``cache/DATA-BACKBONE.h5``, of maps
        ``cache/DATA-BACKBONE-LAYER.h5``.
    layer : {"avgpool", "layer3", "layer2", "layer1", "stem"}
        Where features are taken. Of a stage these are its maps, ``c * h * w`` numbers
        an image, on which the stages behind it can be trained.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    dtype : {"float32", "float16"}, optional
        Of the stored features; without it float32, of maps float16.
    exif : {"apply", "ignore"}
        Whether images are turned as their camera says.
    decoder : {"pillow", "nvjpeg"}
        ``nvjpeg`` decodes on a CUDA device; its pixels differ by some levels.
    views : int
        V, how many views of each training image are kept: the val view, then random
        ones. The other splits have the val view alone.
    augment : AugmentSpec
        How these are drawn; the classic tutorial's crops and flips without it.
    shard : str, optional
        Extract one of several parts, such as ``3/16``; each makes its own cache,
        ``...-part-3-of-16.h5``, and ``fit_head("cache/...-part-*.h5")`` or `merge`
        takes them together. ``auto`` for the part that torchrun or SLURM says this
        process is, ``auto/16`` for Kubernetes, which does not say the count.
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
    require_layer(layer)
    check_views(views, decoder)
    how = spec or ExtractSpec()
    if how.engine == "ray":
        from featcache.stages.cluster.connection import require_cluster

        require_cluster(how.address)
    place = None if shard is None else place_of(shard)
    images = data_source(
        data, progress=progress, use_cut=how.on_error == "skip", fresh=how.rehash
    )
    with clock.stage("scan"):
        manifest = images.scan()
    progress.say(manifest.describe())
    source = find_weights(
        backbone, weights, exif=exif, decoder=decoder, progress=progress
    )
    named = default_cache(Path(images.name), backbone, layer)
    target = named if cache is None else Path(cache)
    target = target if place is None else place.shard.file(target)
    require_file_name(target)
    job = Job(
        images,
        manifest,
        source,
        target,
        how,
        layer,
        precision,
        dtype or default_dtype(layer),
        views,
        augment,
        progress,
        clock,
        None if place is None else place.shard,
    )
    if place is not None:
        progress.say(f"{place}: {plural(len(job.manifest), 'image')}")
    computed = job.run()
    result = open_cache(target)
    result.report = outcome(
        result,
        timing=timing(job.built, clock, images=computed, elapsed=job.working),
        pieces=job.built.pieces if job.built else {},
        duplicates=tell_duplicates(result, progress),
        shard=None if place is None else place.shard,
        seconds=time.perf_counter() - began,
    )
    return result


def default_cache(data: Path, backbone: str, layer: Layer = POOLED) -> Path:
    """Return where the cache of a source goes.

    Parameters
    ----------
    data : Path
        The data folder, or what is called like the source.
    backbone : str
        Name in the catalog.
    layer : str
        Where features are taken.

    Returns
    -------
    Path
        ``cache/DATA-BACKBONE.h5``; of maps ``cache/DATA-BACKBONE-LAYER.h5``.
    """
    of_maps = "" if layer == POOLED else f"-{layer}"
    return CACHE_FOLDER / f"{data.resolve().name}-{backbone}{of_maps}.h5"
