"""Options that say how a head is fitted, and the spec that they come to."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from featcache.cli.options import Function, refuse_others
from featcache.core.solver_specs import CentroidSpec, KnnSpec, LogRegSpec, RidgeSpec
from featcache.core.training_specs import STANDARDIZE, SgdSpec

SOLVERS: dict[str, type[Any]] = {
    "sgd": SgdSpec,
    "logreg": LogRegSpec,
    "ridge": RidgeSpec,
    "knn": KnnSpec,
    "centroid": CentroidSpec,
}
WITHOUT_EPOCHS = set(SOLVERS) - {"sgd"}


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


NUMBERS, COUNTS = Several(float, "NUMBER,..."), Several(int, "COUNT,...")
_WAYS = Several(click.Choice(STANDARDIZE), "WAY,...")
LISTS = {  # of SGD, each with the words of its help
    "lr": (NUMBERS, "Learning rate at the start."),
    "momentum": (NUMBERS, "Of SGD."),
    "weight_decay": (NUMBERS, "L2 penalty."),
    "step_size": (COUNTS, "Epochs between two drops of the learning rate."),
    "gamma": (NUMBERS, "Factor of each drop."),
    "standardize": (
        _WAYS,
        "zscore: each feature to mean 0, deviation 1; l2: each image to length 1.",
    ),
}


def _list_option(name: str) -> Callable[[Function], Function]:
    kind, words = LISTS[name]
    shown = str(getattr(SgdSpec, name))
    if name == "standardize":
        shown += f"; logreg: {LogRegSpec.standardize}"
    return click.option(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=None,
        help=f"{words}  [default: {shown}]",
    )


def _number(spec: type[Any], name: str, words: str) -> Callable[[Function], Function]:
    return click.option(
        f"--{name.replace('_', '-')}",
        default=getattr(spec, name),
        show_default=True,
        help=words,
    )


def _grid(
    option: str, name: str, words: str, default: str
) -> Callable[[Function], Function]:
    return click.option(
        option,
        name,
        type=NUMBERS,
        multiple=True,
        help=f"{words}; several are compared on training images.  [default: {default}]",
    )


_OPTIONS = (
    click.option(
        "--solver",
        type=click.Choice(list(SOLVERS)),
        default="sgd",
        show_default=True,
        help="SGD with StepLR; scikit-learn's logistic regression; ridge regression; "
        "weighted nearest neighbours; nearest class mean.",
    ),
    *map(_list_option, LISTS),
    click.option("--nesterov", is_flag=True, help="Look ahead along the momentum."),
    _number(SgdSpec, "epochs", "Passes over train."),
    _number(SgdSpec, "batch_size", "Per step."),
    _number(SgdSpec, "seed", "Of weights, order, and what is drawn or held out."),
    _grid("--C", "C", "Inverse penalty of logreg", "1e-6 to 1e4"),
    _number(LogRegSpec, "max_iter", "Iterations of logreg at most."),
    _number(LogRegSpec, "cv", "Folds on which logreg chooses C; 0: one held-out part."),
    _grid("--lambda", "lambdas", "Penalty of ridge", "1e-6 to 1e6"),
    _number(KnnSpec, "k", "Neighbours that vote in knn."),
    _number(
        KnnSpec, "temperature", "Of knn: the smaller, the more the nearest one weighs."
    ),
)


def solver_options(function: Function) -> Function:
    """Add every option of every solver.

    Parameters
    ----------
    function : callable
        Of a command.

    Returns
    -------
    callable
        The same.
    """
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def settings_of(
    ctx: click.Context, solver: str, settings: dict[str, Any], *, also: set[str]
) -> dict[str, Any]:
    """Return the settings of the solver that was chosen; refuse those of others.

    Parameters
    ----------
    ctx : click.Context
        Of the command.
    solver : str
        A key of `SOLVERS`.
    settings : dict
        Every option by its parameter's name.
    also : set of str
        Options that do something beside the solver's own.

    Returns
    -------
    dict
        What was given, or has a default; `LISTS` still hold tuples.

    Raises
    ------
    click.UsageError
        When an option does nothing with this solver.
    """
    own = {f.name for f in fields(SOLVERS[solver])}
    refuse_others(ctx, set(settings) - own - also, f"--solver {solver}")
    given = {k: v for k, v in settings.items() if k in own and v not in (None, ())}
    for name in ("C", "lambdas"):
        if name in given:
            given[name] = tuple(value for values in given[name] for value in values)
    return given


def single_spec(solver: str, given: dict[str, Any], instead: str = "") -> Any:  # noqa: ANN401
    """Return the spec of one head.

    Parameters
    ----------
    solver : str
        A key of `SOLVERS`.
    given : dict
        From `settings_of`.
    instead : str
        With what options of SGD take no list; by default the solver.

    Returns
    -------
    SgdSpec, LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        With the settings given.

    Raises
    ------
    click.UsageError
        When an option has several values.
    """
    for name in LISTS:
        if len(given.get(name, ())) > 1:
            option = f"--{name.replace('_', '-')}"
            where = instead or f"--solver {solver}"
            raise click.UsageError(f"{option} takes one value with {where}")
    return SOLVERS[solver](**{k: v[0] if k in LISTS else v for k, v in given.items()})
