"""A report as one HTML file: no network, no other file, nothing that a name can run.

Every name goes through jinja2's autoescape, and to the script as JSON that it inserts
as text. The page's policy allows the one style and the one script by their sha256,
and pictures that are in the page; whatever else slipped in would stay dead.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from featcache.core.audits import ClassCount
from featcache.core.manifest import SPLITS
from featcache.core.pages import (
    FINDINGS,
    NO_TILE,
    SHEET,
    AuditPart,
    Cell,
    ComparisonPart,
    MapPart,
    Page,
    RunPart,
)
from featcache.viz import page_words
from featcache.viz.page_charts import Scale, charts
from featcache.viz.page_marks import (
    Heat,
    Scatter,
    heat,
    largest,
    look,
    outline,
    scatter,
    shade,
)

TABLE = 30
"""Classes up to which a confusion matrix is a table; above it is a drawing."""

_PAIRS = 40  # most confused ones that are listed beside a drawing
_LEGEND = 12  # classes
_SIZES = 300  # classes whose sizes are told
_MANY = 120  # mistakes from which on their rings on a map are thin


@dataclass(frozen=True)
class Row:
    """One class of a confusion matrix that is a table."""

    label: int
    images: int
    right: int
    cells: tuple[Cell | None, ...]  # by predicted class


@dataclass(frozen=True)
class Rival:
    """One run of a comparison, and where its interval is drawn, from 0 to 100."""

    letter: str
    name: str
    accuracy: float
    interval: tuple[float, float]
    low: float
    middle: float
    high: float


def render(page: Page) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    page : Page
        Everything that it shows.

    Returns
    -------
    str
        A whole document; equal pages give equal ones.
    """
    style = _source("report.css") + _sprites(page.sheets)
    script = _source("report.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return (
        _environment()
        .get_template("report.html")
        .render(
            page=page,
            policy=policy,
            style=Markup(style),  # noqa: S704 - ours
            script=Markup(script),  # noqa: S704 - ours
            data=_data(page),
            map=page.map if isinstance(page.map, MapPart) else None,
            marks=_marks(page),
            matrices={run.letter: _matrix(run, len(page.classes)) for run in page.runs},
            rivals=_rivals(page.comparison),
            on_map=sorted({page.pictures[at].label for at in _places(page)}),
            sizes=_sizes(page.audit),
            legend=_LEGEND,
            many=_MANY,
            pairs=_PAIRS,
            table=TABLE,
            findings=FINDINGS,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("featcache.viz"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Escaped for a script element, too: "<" becomes "\\u003c".
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals.update(
        words=page_words, charts=charts, look=look, outline=outline, shade=shade,
        SHEET=SHEET, NO_TILE=NO_TILE,
    )  # fmt: skip
    environment.filters["percent"] = page_words.percent
    environment.filters["capitalize_first"] = _capital
    return environment


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _sprites(sheets: Iterable[bytes]) -> str:
    """Return the rules that put a tile of a sheet into an element."""
    last = SHEET - 1
    places = (
        f".p{row * SHEET + column}{{background-position:"
        f"{100 * column / last:.5g}% {100 * row / last:.5g}%}}"
        for row in range(SHEET)
        for column in range(SHEET)
    )
    pictures = (
        f'.s{at}{{background-image:url("data:image/jpeg;base64,'
        f'{base64.b64encode(sheet).decode()}")}}'
        for at, sheet in enumerate(sheets)
    )
    return "\n".join([*places, *pictures])


def _data(page: Page) -> dict[str, Any]:
    """Return what the script needs, in columns: it is the larger part of many pages."""
    return {
        "classes": page.classes,
        "splits": SPLITS,
        "path": [picture.path for picture in page.pictures],
        "label": [picture.label for picture in page.pictures],
        "split": [SPLITS.index(picture.split) for picture in page.pictures],
        "tile": [picture.tile for picture in page.pictures],
        "note": {at: p.note for at, p in enumerate(page.pictures) if p.note},
        "runs": {run.letter: _guesses(run) for run in page.runs},
        "map": _places(page),
        "sheet": SHEET * SHEET,
    }


def _guesses(run: RunPart) -> Mapping[str, Any]:
    return {
        "split": SPLITS.index(run.split),
        "picture": list(run.guesses),
        "guess": [guess.label for guess in run.guesses.values()],
        "share": [round(guess.probability, 4) for guess in run.guesses.values()],
        "cells": [[c.true, c.predicted, c.count] for c in largest(run.cells)],
        "all": len(largest(run.cells)) == len(run.cells),
    }


def _sizes(audit: AuditPart | str) -> tuple[ClassCount, ...]:
    """Return the sizes of the classes, of very many the smallest."""
    if isinstance(audit, str):
        return ()
    counts = audit.report.classes
    if len(counts) <= _SIZES:
        return counts
    return tuple(sorted(counts, key=lambda count: count.train)[:_SIZES])


def _marks(page: Page) -> Scatter | None:
    if not isinstance(page.map, MapPart):
        return None
    labels = (page.pictures[at].label for at in page.map.pictures)
    return scatter(page.map.points, labels)


def _places(page: Page) -> list[int]:
    return list(page.map.pictures) if isinstance(page.map, MapPart) else []


def _matrix(run: RunPart, classes: int) -> tuple[Row, ...] | Heat:
    if classes > TABLE:
        return heat(run.cells, classes)
    found = {(cell.true, cell.predicted): cell for cell in run.cells}
    rows = []
    for true in range(classes):
        cells = tuple(found.get((true, predicted)) for predicted in range(classes))
        counts = [cell.count if cell else 0 for cell in cells]
        rows.append(Row(true, sum(counts), counts[true], cells))
    return tuple(rows)


def _rivals(part: ComparisonPart | None) -> tuple[Rival, ...]:
    if part is None:
        return ()
    ends = [end for *_, interval in part.rivals for end in interval]
    low, high = min(ends), max(ends)
    scale = Scale(low, high if high > low else low + 0.01, 3, 97)
    return tuple(
        Rival(
            letter,
            name,
            accuracy,
            ends,
            scale(ends[0]),
            scale(accuracy),
            scale(ends[1]),
        )
        for letter, name, accuracy, ends in part.rivals
    )
