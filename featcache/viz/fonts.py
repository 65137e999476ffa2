"""Fonts: which families together have every letter of the names in a picture."""

import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from featcache.core.libraries import optional
from featcache.core.text import listed, plural

Say = Callable[[str], None]

FIRST = "DejaVu Sans"  # comes with matplotlib
_PLAIN = ("Regular", "Book", "Normal")
_CATCH_ALL = "Last Resort"  # has a box for every letter, and a letter for none
_NOTO = {
    "CJK": "Noto Sans CJK",
    "Hangul": "Noto Sans CJK",
    "Hiragana": "Noto Sans CJK",
    "Katakana": "Noto Sans CJK",
    "signs": "Symbola",  # matplotlib draws no coloured ones
}


def families_for(names: Iterable[str], say: Say) -> list[str]:
    """Return the font families that a picture with these names needs.

    Parameters
    ----------
    names : iterable of str
        All that is written in letters of the user.
    say : callable
        Told which letters no installed font has, and which ones this matplotlib
        cannot join.

    Returns
    -------
    list of str
        For ``font.family``: one after the other is asked for a letter.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    """
    names = list(names)
    letters = frozenset(c for name in names for c in name if not c.isspace())
    families, missing = _found(letters)
    if missing:
        say(_lacking(missing, names))
    _warn_of_shaping(letters, say)
    return list(families)


@cache
def _found(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return families, and the letters that none of them has."""
    manager: Any = optional("matplotlib.font_manager", "drawing", extra="plot")
    families = [FIRST]
    missing = letters - _covered(manager.findfont(FIRST), letters)
    while missing:
        best, letters_of_it = _best(missing)
        if not letters_of_it:
            break
        if best not in {entry.fname for entry in manager.fontManager.ttflist}:
            manager.fontManager.addfont(best)  # installed after matplotlib had looked
        families.append(_family(best))
        missing -= letters_of_it
    return tuple(families), missing


def _best(missing: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Return the font file that has most of some letters, and which it has."""
    both = ((path, _covered(path, missing)) for path in _files())
    return max(both, key=lambda pair: len(pair[1]), default=("", frozenset()))


@cache
def _files() -> tuple[str, ...]:
    """Return the usable font files of this machine, plain ones without serifs first."""
    manager: Any = optional("matplotlib.font_manager", "drawing", extra="plot")
    known = {entry.fname for entry in manager.fontManager.ttflist}
    every = known | set(manager.findSystemFonts())
    return tuple(sorted(filter(_usable, every), key=_rank))


def _usable(path: str) -> bool:
    font = _opened(path)
    return font is not None and font.scalable and _CATCH_ALL not in font.family_name


def _rank(path: str) -> tuple[bool, bool, str]:
    font = _opened(path)
    return font.style_name not in _PLAIN, "Serif" in font.family_name, path


@cache
def _opened(path: str) -> Any:  # noqa: ANN401 - matplotlib's FT2Font
    """Return a font; None for what FreeType does not read."""
    module: Any = optional("matplotlib.ft2font", "drawing", extra="plot")
    try:
        return module.FT2Font(path)
    except (OSError, RuntimeError):
        return None


def _covered(path: str, letters: frozenset[str]) -> frozenset[str]:
    font = _opened(path)
    return frozenset(c for c in letters if font.get_char_index(ord(c)))


def _family(path: str) -> str:
    return str(_opened(path).family_name)


def _lacking(missing: frozenset[str], names: Iterable[str]) -> str:
    scripts = sorted({_script(letter) for letter in missing})
    fonts = dict.fromkeys(_NOTO.get(s, f"Noto Sans {s}") for s in scripts)
    count = sum(not missing.isdisjoint(name) for name in names)
    return (
        f"no installed font has all letters of {plural(count, 'name')} "
        f"({listed(scripts)}); they are drawn as boxes; install a font such as "
        f"{listed(fonts)}"
    )


def _script(letter: str) -> str:
    """Return the script of a letter, as its Unicode name begins; 'signs' for others."""
    word = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    if not word or unicodedata.category(letter)[0] not in "LM":
        return "signs"
    return word if word == "CJK" else word.capitalize()


def _warn_of_shaping(letters: frozenset[str], say: Say) -> None:
    """Tell of letters that must be joined or ordered where matplotlib does neither."""
    matplotlib: Any = optional("matplotlib", "drawing", extra="plot")
    module: Any = optional("matplotlib.ft2font", "drawing", extra="plot")
    scripts = {_script(c) for c in letters if _is_shaped(c)} - {"signs"}
    if scripts and not hasattr(module, "__libraqm_version__"):
        say(
            f"matplotlib {matplotlib.__version__} draws {listed(sorted(scripts))} "
            "letters one by one from left to right; from 3.11 on it joins and orders "
            "them"
        )


def _is_shaped(letter: str) -> bool:
    right_to_left = unicodedata.bidirectional(letter) in ("R", "AL")
    return right_to_left or unicodedata.category(letter) == "Mc"
