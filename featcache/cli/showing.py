"""The command that shows images as the network sees them: show.

Stages are imported inside the command, so that help and completion stay instant.
"""

from pathlib import Path

import click

from featcache.cli.options import FILE, data_argument, json_option, refuse_others
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.text import shown


@click.command()
@data_argument
@click.option(
    "--augmented",
    is_flag=True,
    help="Show the first batch that finetune trains on, as it augments it.",
)
@click.option(
    "--per-class",
    type=click.IntRange(1, 240),
    default=4,
    show_default=True,
    metavar="K",
    help="Images of each class.",
)
@click.option("--last", is_flag=True, help="The last images, not the first.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="train",
    show_default=True,
    help="Which part.",
)
@click.option(
    "--classes",
    default=None,
    metavar="A,B",
    help="Which classes, in this order.  [default: as many as a page has room for]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 240),
    default=FinetuneSpec.batch_size,
    show_default=True,
    help="Of --augmented.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=FinetuneSpec.seed,
    show_default=True,
    help="Of --augmented.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="FILE",
    help="A .png or .svg file.  [default: runs/show-....png]",
)
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    /,
    data: str,
    augmented: bool,
    per_class: int,
    last: bool,
    split: str,
    classes: str | None,
    batch_size: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw images as the network sees them: of each class, or as augmented.

    DATA is what extract takes: a folder of class folders, a list, tar shards, tables,
    or hymenoptera, hotdog or digits; or a cache, whose images are shown as far as they
    are still those that it was made of.
    """
    if augmented:
        refuse_others(ctx, {"per_class", "last", "split", "classes"}, "--augmented")
    else:
        refuse_others(ctx, {"batch_size", "seed"}, "--augmented", word="without")
    from featcache.stages.pictures import picture_file, save_picture
    from featcache.stages.showing import show as run

    of = Path(data).resolve().name.removesuffix(".h5")
    name = f"show-{of}-{'augmented' if augmented else split}"
    file = picture_file(name, out)
    picture = run(
        data,
        augmented=augmented,
        per_class=per_class,
        last=last,
        split=split,
        classes=None if classes is None else classes.split(","),
        batch_size=batch_size,
        seed=seed,
        progress=Terminal(),
    )
    save_picture(picture, file)
    if as_json:
        print_json({"out": shown(file)})
    else:
        click.echo(shown(file))
