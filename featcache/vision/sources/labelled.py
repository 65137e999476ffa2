"""Classes and splits of samples whose source says them one by one."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.errors import DataError
from featcache.core.manifest import SPLITS, TRAIN, VAL
from featcache.core.metrics import Labels
from featcache.core.splits import hashed_splits
from featcache.core.text import listed, plural, shown
from featcache.vision.levels import split_of

LABELS = ("label", "class", "class_name", "category", "target", "cls")
_WORDS = re.compile(r"[-_. =]")  # between the words of a file's name
UNSAID = 255  # where a sample's split should stand and nothing does

Splits = npt.NDArray[np.uint8]


class Vocabulary:
    """Class names in the order in which they came, each with a number."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def number(self, name: bytes) -> int:
        """Return the number of a class.

        Parameters
        ----------
        name : bytes
            Seen before or not.

        Returns
        -------
        int
            Counted from 0.
        """
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> list[bytes]:
        """The names by number."""
        return [*self._numbers]


def one_vocabulary(
    parts: Sequence[tuple[list[bytes], Labels]],
) -> tuple[list[bytes], Labels]:
    """Give the classes of all files one numbering.

    Parameters
    ----------
    parts : sequence of (list of bytes, ndarray of int32)
        Of each file its class names, and each image's place among them.

    Returns
    -------
    list of bytes, and ndarray of int32, shape (N,)
        Class names, and each image's place among them.
    """
    classes = Vocabulary()
    codes = []
    for names, own in parts:
        new = np.array([classes.number(name) for name in names], np.int32)
        codes.append(new[own])
    return classes.names, np.concatenate(codes)


def split_number(word: str, where: str) -> int:
    """Return the split that a word stands for.

    Parameters
    ----------
    word : str
        Such as ``train`` or ``validation``, in any case of letters.
    where : str
        Says it, for the error.

    Returns
    -------
    int
        Number of the split.

    Raises
    ------
    DataError
        When it is none.
    """
    number = split_of(os.fsencode(word))
    if number is None:
        raise DataError(
            f"{where}: there is no split {word!r}; expected train, val or test"
        )
    return number


def split_of_name(name: str) -> int:
    """Return the split that a file's folders or the words of its name say.

    Parameters
    ----------
    name : str
        Such as ``train/000.tar`` or ``cars-val-000.tar``.

    Returns
    -------
    int
        Number of the split; `UNSAID` where there is none.

    Raises
    ------
    DataError
        When there are several.
    """
    parts = name.rpartition(".")[0].split("/")
    # Of a folder such as label=test it is no split.
    words = "-".join(p for p in parts if "=" not in p or p.startswith("split="))
    numbers = map(split_of, map(os.fsencode, _WORDS.split(words)))
    found = sorted({number for number in numbers if number is not None})
    if len(found) > 1:
        splits = " and ".join(SPLITS[number] for number in found)
        raise DataError(f"{shown(name)} is called as a part of {splits}; rename it")
    return found[0] if found else UNSAID


def field_of(fields: Collection[str], names: Sequence[str], here: str) -> str:
    """Return the one field that has one of some names.

    Parameters
    ----------
    fields : collection of str
        What there is.
    names : sequence of str
        What the field may be called, the best name first.
    here : str
        Where, for errors.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    DataError
        When there is no such field, or several.
    """
    found = [name for name in names if name in fields]
    if not found:
        raise DataError(
            f"{here} has no {names[0]} (it has: {listed(map(shown, fields))}; expected "
            f"one of {', '.join(names)})"
        )
    if len(found) > 1:
        raise DataError(
            f"{here} says the {names[0]} more than once: {', '.join(found)}; keep one"
        )
    return found[0]


def said(line: Mapping[str, Any], names: Sequence[str], here: str) -> str:
    """Return the value of the one field that has one of some names.

    Parameters
    ----------
    line : mapping of str to object
        What is said of a sample.
    names : sequence of str
        What the field may be called, the best name first.
    here : str
        Who says it, for errors.

    Returns
    -------
    str
        Text, or a whole number as text.

    Raises
    ------
    DataError
        When there is no such field, or several, or it holds neither.
    """
    return text_of(line, field_of(line, names, here), here)


def text_of(line: Mapping[str, Any], name: str, here: str) -> str:
    """Return the value of a field.

    Parameters
    ----------
    line : mapping of str to object
        What is said of a sample.
    name : str
        The field, which is there.
    here : str
        Who says it, for errors.

    Returns
    -------
    str
        Text, or a whole number as text.

    Raises
    ------
    DataError
        When it holds neither.
    """
    value = line[name]
    if isinstance(value, str):
        value = value.strip()
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    what = "is empty" if value in ("", None) else f"is {value!r}, no text and no number"
    raise DataError(f"{here}: its {name} {what}")


def arrange(
    where: str,
    names: list[bytes],
    codes: Labels,
    splits: Splits,
    paths: npt.NDArray[np.bytes_],
) -> tuple[tuple[str, ...], Labels, Splits]:
    """Return classes, labels and splits, by the rules that hold for folders.

    Classes come from train and are ordered by their bytes, or by value where all of
    them are numbers. Without a val split, about a fifth of train is held out by hash
    of the path.

    Parameters
    ----------
    where : str
        The source, for errors.
    names : list of bytes
        Of classes.
    codes : ndarray of int32, shape (N,)
        Each sample's class, as its place in ``names``.
    splits : ndarray of uint8, shape (N,)
        Of each sample; `UNSAID` where the source says none.
    paths : ndarray of bytes, shape (N,)
        Of the samples.

    Returns
    -------
    classes : tuple of str
        C names.
    labels : ndarray of int32, shape (N,)
        In [0, C).
    splits : ndarray of uint8, shape (N,)
        None of them `UNSAID`.

    Raises
    ------
    DataError
        When some samples have a split and others none, train has fewer than two
        classes, or another split has a class that train has not.
    """
    splits = _complete(where, splits, paths)
    in_train = splits == TRAIN
    known = np.unique(codes[in_train])
    if len(known) < 2:
        raise _too_few(where, [names[code] for code in known])
    _require_known(where, names, codes, splits, known)
    ordered = sorted(known.tolist(), key=_order([names[code] for code in known], names))
    label_of = np.full(len(names), -1, np.int32)
    label_of[ordered] = np.arange(len(ordered))
    labels = label_of[codes]
    if not (splits == VAL).any():
        splits[in_train] = hashed_splits(paths[in_train], labels[in_train])
    return tuple(os.fsdecode(names[code]) for code in ordered), labels, splits


def _complete(where: str, splits: Splits, paths: npt.NDArray[np.bytes_]) -> Splits:
    unsaid = splits == UNSAID
    if unsaid.all():
        return np.full(len(splits), TRAIN, np.uint8)
    if unsaid.any():
        first = shown(paths[int(unsaid.argmax())])
        raise DataError(
            f"{where}: {first} has no split, though others have one; say train, val or "
            "test for all of them, or for none"
        )
    return splits.copy()


def _too_few(where: str, names: list[bytes]) -> DataError:
    found = f"only one class, {shown(names[0])}" if names else "no image"
    return DataError(
        f"{where} has {found} in train; a classifier needs at least two classes"
    )


def _require_known(
    where: str,
    names: list[bytes],
    codes: Labels,
    splits: Splits,
    known: npt.NDArray[np.int32],
) -> None:
    for number, split in enumerate(SPLITS):
        unknown = np.setdiff1d(codes[splits == number], known)
        if len(unknown):
            strange = int((np.isin(codes, unknown) & (splits == number)).sum())
            raise DataError(
                f"{where}: split {split} has classes that train has not: "
                f"{listed(shown(names[code]) for code in unknown)} "
                f"({plural(strange, 'image')}); train has: "
                f"{listed(shown(names[code]) for code in known)}"
            )


def _order(used: list[bytes], names: list[bytes]) -> Callable[[int], Any]:
    """Return by what classes are ordered: 10 comes after 9 where all are numbers."""
    if all(name.isdigit() and str(int(name)).encode() == name for name in used):
        return lambda code: int(names[code])
    return lambda code: names[code]
