"""The command that makes a cache."""

from pathlib import Path
from typing import Any

import click

from featcache.cli.options import (
    FILE,
    backbone_option,
    data_argument,
    devices_option,
    exif_option,
    json_option,
    weights_option,
)
from featcache.cli.progress import Terminal
from featcache.cli.render import percent, print_bad_images, print_json
from featcache.core.layers import LAYERS
from featcache.core.reports import ExtractReport
from featcache.core.specs import AugmentSpec, Decoder, ExtractSpec, FeatureSpec
from featcache.core.text import plural, shown, times
from featcache.core.timing import START, WORK

DECODERS: dict[str, Decoder] = {"cpu": "pillow", "gpu": "nvjpeg"}


@click.command()
@data_argument
@backbone_option
@weights_option
@click.option(
    "--cache",
    type=FILE,
    default=None,
    metavar="FILE",
    help="The file to make.  [default: cache/DATA-BACKBONE.h5, of maps "
    "cache/DATA-BACKBONE-LAYER.h5]",
)
@click.option(
    "--shard",
    default=None,
    metavar="I/N",
    help="Extract part I of N, for as many processes or machines; makes "
    "NAME-part-I-of-N.h5. auto: what torchrun or SLURM says this process is; auto/N: "
    "for Kubernetes, which does not say how many there are.",
)
@click.option(
    "--layer",
    type=click.Choice(LAYERS),
    default=FeatureSpec.layer,
    show_default=True,
    help="Where features are taken. A stage's maps are kept whole: large, and for "
    "training the stages behind it.",
)
@devices_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default=ExtractSpec.engine,
    show_default=True,
    help="Who computes: this machine, or actors on every machine of a Ray cluster.",
)
@click.option(
    "--address",
    default=ExtractSpec.address,
    show_default=True,
    metavar="HOST:PORT",
    help="Of the Ray cluster. auto: the one that this machine belongs to; local: one "
    "of this machine alone, for the time of the work.",
)
@click.option(
    "--actors",
    default=ExtractSpec.actors,
    metavar="N",
    help="How many actors, also more than the Ray cluster has room for: they wait, "
    "and an autoscaler adds machines for them.  [default: as many as there is room "
    "for]",
)
@click.option(
    "--actor-cpus",
    default=ExtractSpec.actor_cpus,
    metavar="X",
    help="CPUs of each actor, whole or a fraction, as Ray counts them.  [default: up "
    "to 8, what leaves little of the cluster unused]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default=FeatureSpec.precision,
    show_default=True,
    help="Of the network's arithmetic.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default=None,
    help="Of the stored features.  [default: float32, of maps float16]",
)
@exif_option
@click.option(
    "--decode",
    type=click.Choice(list(DECODERS)),
    default="cpu",
    show_default=True,
    help="What decodes JPEG files. A GPU's pixels differ by some levels, so that its "
    "features make another cache.",
)
@click.option(
    "--views",
    default=FeatureSpec.views,
    show_default=True,
    metavar="K",
    help="Views of each training image: the val view, then random crops, half of them "
    "mirrored, of which fit-head draws one each epoch.",
)
@click.option(
    "--views-seed",
    default=AugmentSpec.seed,
    show_default=True,
    help="Of the random crops.",
)
@click.option(
    "--batch-size",
    default=ExtractSpec.batch_size,
    help="Images in one forward pass.  [default: 8 on a CPU, up to 128 on a GPU]",
)
@click.option(
    "--workers",
    default=ExtractSpec.workers,
    help="Threads that decode and compute.  [default: one per core, on a GPU 3 more]",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default=ExtractSpec.on_error,
    show_default=True,
    help="What to do when an image cannot be used, after all others are computed.",
)
@click.option(
    "--rehash", is_flag=True, help="Read every image; trust no size and time."
)
@click.option(
    "--overwrite", is_flag=True, help="Replace a cache made with other settings."
)
@click.option(
    "--wait",
    is_flag=True,
    help="If another process is writing the cache, wait for it to end.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Say which pieces are in use, and why one is not; and every 10 s, what "
    "takes the time.",
)
@json_option
def extract(
    data: str,
    backbone: str,
    weights: str,
    cache: Path | None,
    shard: str | None,
    layer: Any,  # noqa: ANN401
    precision: Any,  # noqa: ANN401 - click.Choice has checked it
    dtype: Any,  # noqa: ANN401
    exif: Any,  # noqa: ANN401
    decode: str,
    views: int,
    views_seed: int,
    verbose: bool,
    as_json: bool,
    **how: Any,  # noqa: ANN401
) -> None:
    """Run a frozen backbone once over every image; keep the features.

    DATA is a folder of class folders, with or without train/, val/ and test/; a list
    of files and labels (.csv, .tsv, .jsonl); tar shards, such as
    'shards/{000..099}.tar'; Parquet or Arrow files; what Hugging Face's datasets
    saved; lists, shards and Parquet also at s3:// and other URLs; or hymenoptera,
    hotdog or digits.
    """
    from featcache.stages.extraction import extract as run

    result = run(
        data,
        ExtractSpec(**how),
        backbone=backbone,
        weights=weights,
        cache=cache,
        layer=layer,
        precision=precision,
        dtype=dtype,
        exif=exif,
        decoder=DECODERS[decode],
        views=views,
        augment=AugmentSpec(seed=views_seed),
        shard=shard,
        progress=Terminal(verbose=verbose),
    )
    report = result.report
    assert report is not None
    if as_json:
        print_json(report.to_json())
    else:
        _show(report, verbose=verbose)


def _show(report: ExtractReport, *, verbose: bool) -> None:
    print_bad_images(report.bad_images)
    speed = f" ({report.images_per_second:.0f} images/s)" if report.computed else ""
    views = "" if report.views is None else f"up to {report.views} views x "
    row = times(report.map_shape or (report.embed_dim,))
    click.echo(
        f"{shown(report.cache)}: {plural(report.images, 'image')} x {views}"
        f"{row}, {plural(report.classes, 'class')}; computed "
        f"{report.computed:,}{speed}, reused {report.reused:,}, skipped "
        f"{report.skipped:,} in {report.seconds:.1f} s"
    )
    if not report.computed:
        return
    begun = sum(report.stages[name] for name in START)
    click.echo(f"{begun:.1f} s to start; then {report.bottleneck}")
    if verbose:
        _show_stages(report)


def _show_stages(report: ExtractReport) -> None:
    """Print what each stage took, and how busy each thread kept its core."""
    for name, seconds in report.stages.items():
        each = seconds / report.computed * 1000
        beside = f"  {each:.2f} ms an image" if name in WORK else ""
        click.echo(f"  {name:<8}{seconds:>9.2f} s{beside}")
    busy = ", ".join(percent(share) for share in report.busy)
    click.echo(f"  cores busy: {busy}")
