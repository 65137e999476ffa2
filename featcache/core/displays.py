"""What objects tell of themselves: lines at the prompt, a table in a notebook.

A class says once, in `_told`, what a person wants to know. Names come from strangers'
folders: whatever is told is made printable and cut here, and escaped for HTML.
"""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from featcache.core.text import shown, size

Told = Iterable[tuple[str, object]]
"""Names and values; a None is left out."""

Share = float | None

NAMED = 5  # of a list
_ROWS = 25  # of one object
_WIDTH = 88  # columns of a line
_NAME = 40  # characters of a row's name
_ITEM = 60  # of one of several
_VALUE = 300
_WORDS = {"ece": "calibration error"}
_SHARES = ("accuracy", "recall", "mean", "chance")
_UNITS: Mapping[str, Callable[[Any], str]] = {
    "seconds": "{:.2f} s".format,
    "bytes": size,
}

# No colours: the text has the page's own, dark or light.
_TABLE = "border-collapse: collapse; margin: 0"
_CAPTION = (
    "caption-side: top; color: inherit; font-weight: bold; padding: 0.2em 0.5em; "
    "text-align: left"
)
_CELL = "padding: 0.2em 0.5em; text-align: left; vertical-align: top"
_HEAD = f"{_CELL}; font-weight: normal; opacity: 0.75; overflow-wrap: break-word"
_DATA = f"{_CELL}; max-width: 50em; overflow-wrap: anywhere; white-space: normal"


class Displayed:
    """Base of what has a short `repr` and the same as a table for notebooks."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**kwargs)
        # Were it inherited only, @dataclass would add one that prints every field.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Displayed.__repr__  # type: ignore[method-assign]

    def _told(self) -> Told:
        raise NotImplementedError

    def __repr__(self) -> str:
        return as_text(type(self).__name__, self._told())

    def _repr_html_(self) -> str:
        return as_html(type(self).__name__, self._told())


def as_text(title: str, told: Told) -> str:
    """Return what is told as text.

    Parameters
    ----------
    title : str
        What it is.
    told : iterable of (str, object)
        Names and values.

    Returns
    -------
    str
        One line if they fit, else a line each; printable whatever the values are.

    Examples
    --------
    >>> print(as_text("LinearHead", [("embed dim", 2048), ("classes", 2)]))
    <LinearHead: embed dim 2,048, classes 2>
    """
    rows = _rows(told)
    line = f"<{title}: {', '.join(' '.join(row) for row in rows)}>"
    if len(line) <= _WIDTH:
        return line
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def as_html(title: str, told: Told) -> str:
    """Return what is told as a table of HTML.

    Parameters
    ----------
    title : str
        What it is.
    told : iterable of (str, object)
        Names and values.

    Returns
    -------
    str
        Escaped, with styles of its own and no colour, script or address.
    """
    rows = "".join(
        f'<tr><th scope="row" style="{_HEAD}">{escape(name)}</th>'
        f'<td style="{_DATA}">{escape(value)}</td></tr>'
        for name, value in _rows(told)
    )
    caption = f'<caption style="{_CAPTION}">{escape(title)}</caption>'
    return f'<table style="{_TABLE}">{caption}<tbody>{rows}</tbody></table>'


def some(names: Iterable[str | bytes], count: int) -> str:
    """Return how many names there are, and the first of them.

    Parameters
    ----------
    names : iterable of str or bytes
        Only as many are taken as are named.
    count : int
        How many there are.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> some(["ants", "bees"], 2)
    '2: ants, bees'
    >>> some(map(str, range(1000)), 1000)
    '1,000: 0, 1, 2, 3, 4 and 995 more'
    """
    if not count:
        return "0"
    limit = _VALUE if count == 1 else _ITEM
    first = [_cut(shown(name), limit) for name in islice(names, NAMED)]
    more = f" and {count - len(first):,} more" if count > len(first) else ""
    return f"{count:,}: {', '.join(first)}{more}"


def percent(share: Share, ends: tuple[float, float] | None = None) -> str | None:
    """Return a share as per cent, with its interval.

    Parameters
    ----------
    share : float or None
        In [0, 1].
    ends : (float, float), optional
        Of its 95 % interval.

    Returns
    -------
    str or None
        None of None.

    Examples
    --------
    >>> percent(0.9542, (0.9086, 0.9777))
    '95.42 % (95 % interval: 90.86 to 97.77 %)'
    """
    if share is None:
        return None
    if ends is None:
        return f"{100 * share:.2f} %"
    low, high = ends
    interval = f"95 % interval: {100 * low:.2f} to {100 * high:.2f} %"
    return f"{100 * share:.2f} % ({interval})"


def titled(name: str) -> str:
    """Return the name of a field as people read it.

    Parameters
    ----------
    name : str
        Such as ``val_ece``.

    Returns
    -------
    str
        Such as ``'val calibration error'``.
    """
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def worded(name: str, value: object, ends: tuple[float, float] | None = None) -> object:
    """Return a field of a report as its name says that it is to be read.

    Parameters
    ----------
    name : str
        Of the field.
    value : object
        What it holds; of a list the items' names are told, of a mapping all.
    ends : (float, float), optional
        Of its 95 % interval.

    Returns
    -------
    object
        A value to tell.
    """
    if isinstance(value, float) and name.endswith(_SHARES):
        return percent(value, ends)
    if name in _UNITS and value is not None:
        return _UNITS[name](value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return some(map(_item, value), len(value)) if value else None
    return None if value == "" or (name, value) == ("skipped", 0) else value


def _item(item: object) -> str:
    """Return what to call an item of a list: its path, its name, or its accuracy."""
    for name in ("path", "name"):
        if hasattr(item, name):
            return str(getattr(item, name))
    if hasattr(item, "accuracy"):
        ends = getattr(item, "interval", None)
        return f"{getattr(item, 'split', '')} {percent(item.accuracy, ends)}".strip()
    return _text(item)


def _rows(told: Told) -> list[tuple[str, str]]:
    rows = [(_cut(shown(k), _NAME), _text(v)) for k, v in told if v is not None]
    if len(rows) > _ROWS:
        rows[_ROWS:] = [("...", f"and {len(rows) - _ROWS:,} more")]
    return rows


def _text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case str() | bytes() | Path():
            return _cut(shown(value), _VALUE)
        case _:
            return _cut(shown(str(value)), _VALUE)


def _cut(text: str, limit: int) -> str:
    """Return a text whose middle is left out where it is too long."""
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"
