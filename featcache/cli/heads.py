"""The command that fits heads: one, or many that are compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from featcache.cli.options import FILE, SIZE, json_option, out_option, refuse_others
from featcache.cli.progress import Terminal
from featcache.cli.solvers import LISTS, settings_of, single_spec, solver_options
from featcache.cli.training import show_training
from featcache.core.machine import place_among_ranks
from featcache.core.resources import Resources
from featcache.core.specs import SgdSpec, SweepSpec

_COMPARING = ("select_on", "refit", "seeds")


@click.command("fit-head")
@click.argument("cache", type=FILE, required=False)
@solver_options
@click.option(
    "--sweep",
    is_flag=True,
    help="Compare a grid of learning rates, weight decays and standardisations.",
)
@click.option(
    "--select-on",
    type=click.Choice(["val", "train"]),
    default=None,
    help="Choose the best head on val, or on a held-out part of train and fit it "
    "again on all of it.  [default: val where there is one]",
)
@click.option(
    "--refit", is_flag=True, help="At the end fit the best again on train and val."
)
@click.option(
    "--seeds",
    default=SweepSpec.seeds,
    show_default=True,
    help="Fit the best with so many seeds; the first one's head is kept.",
)
@click.option(
    "--shots",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Train on so many images of each class, drawn by --seed.  [default: all]",
)
@click.option(
    "--views",
    type=int,
    default=None,
    metavar="N",
    help="Of the views in the cache sgd draws one of the first N each epoch; with 1 "
    "there is nothing random.  [default: all]",
)
@click.option(
    "--memory",
    type=SIZE,
    default=None,
    help="What training features may take, such as 4G; larger ones are read in "
    "shuffled windows.  [default: half of what is free]",
)
@click.option(
    "--device",
    default=Resources.device,
    show_default=True,
    help="Where sgd computes: cpu, auto, cuda, cuda:N.",
)
@out_option
@json_option
@click.pass_context
def fit_head(
    ctx: click.Context,
    /,
    cache: Path | None,
    solver: str,
    sweep: bool,
    shots: int | None,
    views: int | None,
    memory: int | None,
    device: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Fit a head on cached features, in a second; or many, and keep the best.

    CACHE is a file that extract made, or a pattern of several such as
    'cache/part-*.h5'; without it the newest one in cache/. Options that take several
    values, such as --lr 0.001,0.01,0.1, fit a head for each combination in one pass
    and compare them. Started by torchrun, each process reads a part of the features.
    """
    from featcache.stages.probing import fit_head as run

    comparing = {name: settings.pop(name) for name in _COMPARING}
    also = set() if shots is None else {"seed"}
    sgd = solver == "sgd"
    if not sgd:
        others = {"sweep", "memory", "device", *_COMPARING}
        refuse_others(ctx, others, f"--solver {solver}")
    given = settings_of(ctx, solver, settings, also=also)
    spec = (
        _sgd_spec(given, comparing, sweep=sweep) if sgd else single_spec(solver, given)
    )
    result = run(
        cache,
        spec,
        shots=shots,
        shots_seed=settings["seed"],
        views=views,
        resources=Resources(memory, device),
        out=out,
        progress=Terminal(),
    )
    place = place_among_ranks()
    if place is None or place[0] == 0:
        show_training(result.report, as_json=as_json)


def _sgd_spec(
    given: dict[str, Any], comparing: dict[str, Any], *, sweep: bool
) -> SgdSpec | SweepSpec:
    """Return the settings of one head where one is all that was asked for."""
    several = any(len(given.get(name, ())) > 1 for name in LISTS)
    choosing = any(v != getattr(SweepSpec, name) for name, v in comparing.items())
    if not (sweep or several or choosing):
        one: SgdSpec = single_spec("sgd", given)
        return one
    grid = SweepSpec.wide() if sweep else SweepSpec()
    if "lr" in given:  # as typed, whatever the standardisation
        grid = replace(grid, l2_lr_mult=1.0)
    given["nesterov"] = (given["nesterov"],)
    return replace(grid, **given, **comparing)
