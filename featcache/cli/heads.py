"""The command that fits heads: one, or many that are compared."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from featcache.cli.options import FILE, Function, json_option, out_option, refuse_others
from featcache.cli.progress import Terminal
from featcache.cli.training import show_training
from featcache.core.specs import LogRegSpec, SgdSpec, SweepSpec
from featcache.core.training_specs import AXES, STANDARDIZE

_CHOOSING = ("select_on", "refit", "seeds")


class Several(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """One value, or several with commas between them.

    Parameters
    ----------
    kind : click type
        Of each value.
    name : str
        What help shows.
    """

    def __init__(self, kind: Any, name: str) -> None:  # noqa: ANN401 - what click takes
        self.kind = click.types.convert_type(kind)
        self.name = name

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[Any, ...]:
        """Return the values, in order."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        return tuple(self.kind.convert(part.strip(), param, ctx) for part in parts)


_NUMBERS, _COUNTS = Several(float, "NUMBER,..."), Several(int, "COUNT,...")
_WAYS = Several(click.Choice(STANDARDIZE), "WAY,...")
_LISTS = {  # each with the words of its help
    "lr": (_NUMBERS, "Learning rate at the start."),
    "momentum": (_NUMBERS, "Of SGD."),
    "weight_decay": (_NUMBERS, "L2 penalty."),
    "step_size": (_COUNTS, "Epochs between two drops of the learning rate."),
    "gamma": (_NUMBERS, "Factor of each drop."),
    "standardize": (
        _WAYS,
        "zscore: each feature to mean 0, deviation 1; l2: each image to length 1.",
    ),
}


def _list_options(function: Function) -> Function:
    """Add the options that take several values."""
    for name, (kind, words) in reversed(_LISTS.items()):
        function = click.option(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=None,
            help=f"{words}  [default: {getattr(SgdSpec, name)}]",
        )(function)
    return function


def _number(name: str, words: str) -> Callable[[Function], Function]:
    default = getattr(SgdSpec, name)
    option: Callable[[Function], Function] = click.option(
        f"--{name.replace('_', '-')}", default=default, show_default=True, help=words
    )
    return option


@click.command("fit-head")
@click.argument("cache", type=FILE, required=False)
@click.option(
    "--solver",
    type=click.Choice(["sgd", "logreg"]),
    default="sgd",
    show_default=True,
    help="SGD with StepLR, or scikit-learn's logistic regression.",
)
@_list_options
@click.option("--nesterov", is_flag=True, help="Look ahead along the momentum.")
@_number("epochs", "Passes over train.")
@_number("batch_size", "Per step.")
@_number("seed", "Of weights and order.")
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
    "--C",
    "C",
    type=float,
    multiple=True,
    help="Inverse penalty of logreg; several are compared on held-out training "
    "images.  [default: 1e-6 to 1e4]",
)
@click.option(
    "--max-iter",
    default=LogRegSpec.max_iter,
    show_default=True,
    help="Iterations of logreg at most.",
)
@out_option
@json_option
@click.pass_context
def fit_head(
    ctx: click.Context,
    /,
    cache: Path | None,
    solver: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Fit a linear head on cached features, in a second; or many, and keep the best.

    CACHE is a file that extract made; without it the newest one in cache/. Options
    that take several values, such as --lr 0.001,0.01,0.1, fit a head for each
    combination in one pass and compare them.
    """
    from featcache.stages.probing import fit_head as run

    kind = SweepSpec if solver == "sgd" else LogRegSpec
    known = {f.name for f in fields(kind)} | ({"sweep"} if solver == "sgd" else set())
    refuse_others(ctx, set(settings) - known, f"--solver {solver}")
    given = {k: v for k, v in settings.items() if k in known and v not in (None, ())}
    spec = _sgd_spec(given) if solver == "sgd" else LogRegSpec(**_singles(given))
    result = run(cache, spec, out=out, progress=Terminal())
    show_training(result.report, as_json=as_json)


def _sgd_spec(given: dict[str, Any]) -> SgdSpec | SweepSpec:
    """Return the settings of one head where one is all that was asked for."""
    wide = given.pop("sweep")
    nesterov = given.pop("nesterov")
    several = [name for name in AXES if len(given.get(name, ())) > 1]
    if not (wide or several or _chooses(given)):
        rest = {k: v for k, v in given.items() if k not in _CHOOSING}
        return SgdSpec(nesterov=nesterov, **_singles(rest))
    grid = SweepSpec.wide() if wide else SweepSpec()
    if "lr" in given:  # as typed, whatever the standardisation
        grid = replace(grid, l2_lr_mult=1.0)
    return replace(grid, nesterov=(nesterov,), **given)


def _chooses(given: dict[str, Any]) -> bool:
    return "select_on" in given or given["refit"] or given["seeds"] != SweepSpec.seeds


def _singles(given: dict[str, Any]) -> dict[str, Any]:
    """Return the only value of each list."""
    for name in _LISTS:
        if len(given.get(name, ())) > 1:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} takes one value with --solver logreg")
    return {k: v[0] if k in _LISTS else v for k, v in given.items()}
