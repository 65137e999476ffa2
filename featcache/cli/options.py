"""Options that several commands share; defaults are read from the specs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from featcache.core.catalog import BACKBONES, DEFAULT_BACKBONE, IMAGENET
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.specs import SgdSpec, ViewSpec

Function = TypeVar("Function", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


class Size(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """An amount of memory, such as 4G."""

    name = "SIZE"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", value, re.IGNORECASE)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no size such as 500M or 4G", param, ctx)
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


SIZE = Size()


def _names(
    ctx: click.Context,
    param: click.Parameter,
    incomplete: str,
) -> list[CompletionItem]:
    return [CompletionItem(n) for n in BACKBONES if n.startswith(incomplete)]


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta["featcache.json"] = value
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_remember,
    is_eager=True,
    help="Print one JSON object on stdout, and nothing else.",
)
data_argument = click.argument("data", default="hymenoptera", metavar="[DATA]")
backbone_option = click.option(
    "--backbone",
    default=DEFAULT_BACKBONE,
    show_default=True,
    shell_complete=_names,
    help=f"A torchvision ResNet: {', '.join(BACKBONES)}.",
)
weights_option = click.option(
    "--weights",
    default=IMAGENET,
    show_default=True,
    help="imagenet, an enum name such as IMAGENET1K_V2, random:SEED, or a .pth or "
    ".safetensors file.",
)
where_option = click.option(
    "--weights",
    default=None,
    metavar="FILE",
    help="Where the backbone's weights are now, if they moved since training.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:N or mps.",
)
devices_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:N or mps; or several, of which each gets a process: "
    "cuda:0,cuda:1, or cuda:all.",
)
exif_option = click.option(
    "--exif",
    type=click.Choice(["apply", "ignore"]),
    default=ViewSpec.exif,
    show_default=True,
    help="Turn images as their camera says, or do as torchvision's ImageFolder.",
)
out_option = click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="DIR",
    help="Folder for model, report and history.  [default: a new one in runs/]",
)


def sgd_options(
    defaults: type[SgdSpec] | type[FinetuneSpec],
) -> Callable[[Function], Function]:
    """Return a decorator that adds the options of SGD and StepLR.

    Parameters
    ----------
    defaults : type of SgdSpec or FinetuneSpec
        Where the defaults are read.

    Returns
    -------
    callable
        Decorates a command.
    """
    options = [
        click.option("--lr", default=defaults.lr, help="Learning rate at the start."),
        click.option("--momentum", default=defaults.momentum, help="Of SGD."),
        click.option("--nesterov", is_flag=True, help="Look ahead along the momentum."),
        click.option(
            "--weight-decay", default=defaults.weight_decay, help="L2 penalty."
        ),
        click.option("--epochs", default=defaults.epochs, help="Passes over train."),
        click.option("--batch-size", default=defaults.batch_size, help="Per step."),
        click.option(
            "--step-size",
            default=defaults.step_size,
            help="Epochs between two drops of the learning rate.",
        ),
        click.option("--gamma", default=defaults.gamma, help="Factor of each drop."),
        click.option("--seed", default=defaults.seed, help="Of weights and order."),
    ]

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def refuse_others(
    ctx: click.Context, names: set[str], option: str, *, word: str = "with"
) -> None:
    """Refuse options that were given but would do nothing.

    Parameters
    ----------
    ctx : click.Context
        Of the command.
    names : set of str
        Parameters that have no part in this run.
    option : str
        What makes them useless, as the user typed it.
    word : {"with", "without"}
        Whether it is there.

    Raises
    ------
    click.UsageError
        Naming the first of them.
    """
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "")
        if param.name in names and given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[-1]} does nothing {word} {option}")
