"""Rendering: results for people or as one JSON object; errors in one line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from featcache.core import displays
from featcache.core.errors import (
    BadImage,
    BadImagesError,
    DamagedRowsError,
    FeatcacheError,
)
from featcache.core.text import plural


def print_json(value: object) -> None:
    """Print one JSON value on stdout.

    Parameters
    ----------
    value : object
        JSON data.
    """
    click.echo(json.dumps(value))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values in two columns.

    Parameters
    ----------
    fields : mapping
        None is shown as a dash.
    """
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")


def print_bad_images(images: Sequence[BadImage]) -> None:
    """Print every image that could not be used, on stderr.

    Parameters
    ----------
    images : sequence of BadImage
        Paths and reasons.
    """
    if not images:
        return
    click.echo(f"{plural(len(images), 'image')} could not be used:", err=True)
    width = min(60, max(len(image.path) for image in images))
    for image in images:
        click.echo(f"  {image.path:<{width}}  {image.reason}", err=True)


def print_some(sign: str, lines: Sequence[str], limit: int = 20) -> None:
    """Print the first lines of a list, and how many more there are.

    Parameters
    ----------
    sign : str
        Put before each line.
    lines : sequence of str
        Each fits on a line.
    limit : int
        How many are printed at most.
    """
    for line in lines[:limit]:
        click.echo(f"{sign} {line}")
    if len(lines) > limit:
        click.echo(f"{sign} and {len(lines) - limit:,} more: see --json")


def percent(share: float | None, ends: tuple[float, float] | None = None) -> str:
    """Return a share as per cent, with its interval.

    Parameters
    ----------
    share : float or None
        In [0, 1].
    ends : tuple of float, optional
        Of its 95 % interval.

    Returns
    -------
    str
        As in notebooks, for example ``'95.42 %'``; a dash for None.
    """
    return displays.percent(share, ends) or "-"


def interval(ends: tuple[float, float]) -> str:
    """Return two shares as per cent.

    Parameters
    ----------
    ends : tuple of float
        In [0, 1].

    Returns
    -------
    str
        For example ``'90.86 to 97.77 %'``.
    """
    low, high = ends
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def print_confusion(confusion: list[list[int]], classes: Sequence[str]) -> None:
    """Print a confusion matrix, rows true and columns predicted.

    Parameters
    ----------
    confusion : list of list of int
        C rows of C counts.
    classes : sequence of str
        Names in label order.
    """
    if len(classes) > 20:
        click.echo(f"confusion matrix of {len(classes)} classes: see --json")
        return
    names = [name if len(name) <= 16 else f"{name[:13]}..." for name in classes]
    width = max(5, *map(len, names))
    click.echo(f"{'true / predicted':<20}" + _cells(names, width))
    for name, row in zip(names, confusion, strict=True):
        click.echo(f"{name:<20}" + _cells(row, width))


def _cells(values: Sequence[Any], width: int) -> str:
    return "".join(f"  {value:>{width}}" for value in values)


def show_error(error: FeatcacheError, *, as_json: bool) -> None:
    """Print an error of ours: one line on stderr, and what belongs to it.

    Parameters
    ----------
    error : FeatcacheError
        What happened.
    as_json : bool
        Also print an object with the error on stdout.
    """
    images = error.images if isinstance(error, BadImagesError) else ()
    if as_json:
        rows = error.rows if isinstance(error, DamagedRowsError) else ()
        lists = {"bad_images": images, "bad_rows": rows}
        named = {name: [vars(i) for i in bad] for name, bad in lists.items() if bad}
        print_json({"error": str(error), **named})
    else:
        print_bad_images(images)
    click.echo(f"Error: {error}", err=True)
