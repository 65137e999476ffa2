"""The commands that draw what is known already: history and map.

Stages are imported inside the commands, so that help and completion stay instant.
"""

from pathlib import Path

import click

from featcache.cli.options import FILE, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.text import plural, shown


@click.command()
@click.argument("runs", type=FILE, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="FILE",
    help="A .png or .svg file.  [default: history.png in the run's folder; of several "
    "runs, runs/history.png]",
)
@json_option
def history(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Draw how runs went: loss, accuracy and learning rate of each epoch.

    RUN is the folder of a run of fit-head (by SGD) or finetune, finished or not.
    Several are drawn over each other.
    """
    from featcache.stages.pictures import picture_file, save_picture
    from featcache.stages.plotting import plot_history

    if out is None and len(runs) == 1 and runs[0].is_dir():
        out = runs[0] / "history.png"
    file = picture_file("history", out)
    save_picture(plot_history(runs, progress=Terminal()), file)
    if as_json:
        print_json({"out": shown(file)})
    else:
        click.echo(shown(file))


@click.command("map")
@click.argument("cache", type=FILE, required=False)
@click.option(
    "--method",
    type=click.Choice(["tsne", "pca"]),
    default="tsne",
    show_default=True,
    help="t-SNE keeps neighbours together, PCA distances.",
)
@click.option(
    "--model",
    type=FILE,
    default=None,
    metavar="RUN",
    help="Mark what this model mistakes in --split, in val without it.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default=None,
    help="Which part.  [default: all]",
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Images drawn, a random part of more.  [default: 5000 by t-SNE, 20000 by PCA]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of that choice, and of the method.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="FILE",
    help="A .png or .svg file.  [default: runs/map-....png]",
)
@json_option
def map_cache(
    cache: Path | None,
    method: str,
    model: Path | None,
    split: str | None,
    most: int | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw the images of a cache as points, those with like features together.

    CACHE is a file that extract made, or a pattern; without it the newest one in
    cache/. No image is read.
    """
    from featcache.stages.embedding_maps import choose_cache, draw, place
    from featcache.stages.pictures import picture_file, save_picture

    opened = choose_cache(cache)
    file = picture_file(f"map-{opened.name}-{method}", out)
    progress = Terminal()
    found = place(
        opened,
        method="pca" if method == "pca" else "tsne",
        model=model,
        split=split,
        most=most,
        seed=seed,
        progress=progress,
    )
    save_picture(draw(found, progress), file)
    mistakes = None if found.wrong is None else int(found.wrong.sum())
    if as_json:
        drawn = {"drawn": len(found.rows), "images": found.images}
        print_json(
            {"out": shown(file), "method": method, **drawn, "mistakes": mistakes}
        )
        return
    marked = "" if mistakes is None else f", {plural(mistakes, 'mistake')} marked"
    click.echo(f"{shown(file)}: {plural(len(found.rows), 'image')}{marked}")
