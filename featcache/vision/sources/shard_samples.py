"""The samples of one shard: images, and their labels under the same key."""

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.errors import DataError
from featcache.core.metrics import Labels
from featcache.core.text import plural, shown
from featcache.vision.listing import IMAGE_SUFFIXES
from featcache.vision.sources.labelled import LABELS, Vocabulary, said
from featcache.vision.sources.tars import TarMember, Windows

_LABEL_BYTES = 1 << 20  # the longest label that is read


@dataclass(frozen=True, eq=False)
class Packed:
    """The n images of a shard as columns, in the order of their bytes.

    Parameters
    ----------
    prefix : bytes
        The shard's path.
    members : ndarray of bytes, shape (n,)
        The images' paths in it.
    starts, sizes : ndarray of int64, shape (n,)
        Where each one lies.
    names : list of bytes
        Class names.
    codes : ndarray of int32, shape (n,)
        Each one's class, as its place in ``names``.
    mtime_ns : int
        When the shard last changed, nanoseconds.
    length : int
        Bytes of the shard.
    ignored : Counter
        What else lay in it, by kind.
    """

    prefix: bytes
    members: npt.NDArray[np.bytes_]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    names: list[bytes]
    codes: Labels
    mtime_ns: int
    length: int
    ignored: Counter[str]

    @property
    def paths(self) -> npt.NDArray[np.bytes_]:
        """The shard's path and their own, as a manifest has them."""
        return np.strings.add(self.prefix + b"/", self.members)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that follows from the shard's bytes alone.

        Returns
        -------
        dict of str to ndarray
            What `unpacked` takes.
        """
        return {
            "members": self.members,
            "starts": self.starts,
            "sizes": self.sizes,
            "names": np.array(self.names, np.bytes_),
            "codes": self.codes,
            "kinds": np.array([kind.encode() for kind in self.ignored], np.bytes_),
            "counts": np.array([*self.ignored.values()], np.int64),
        }


def unpacked(
    columns: Mapping[str, npt.NDArray[Any]], prefix: bytes, mtime_ns: int, length: int
) -> Packed:
    """Return the images of a shard out of their columns.

    Parameters
    ----------
    columns : mapping of str to ndarray
        As `Packed.columns` gave them.
    prefix : bytes
        The shard's path.
    mtime_ns : int
        When the shard last changed, nanoseconds.
    length : int
        Bytes of the shard.

    Returns
    -------
    Packed
        As it was.
    """
    counts = zip(columns["kinds"].tolist(), columns["counts"].tolist(), strict=True)
    return Packed(
        prefix=prefix,
        members=columns["members"],
        starts=columns["starts"],
        sizes=columns["sizes"],
        names=columns["names"].tolist(),
        codes=columns["codes"],
        mtime_ns=mtime_ns,
        length=length,
        ignored=Counter({kind.decode(): count for kind, count in counts}),
    )


class ShardSamples:
    """Takes in the members of one shard.

    What belongs together has one key: a member's path up to the first dot of its name.

    Parameters
    ----------
    file : str
        The shard, for errors.
    prefix : bytes
        Its path, with which those of its images begin.
    """

    def __init__(self, file: str, prefix: bytes) -> None:
        self._file, self._prefix = file, prefix
        self._images: dict[bytes, bytes] = {}  # the image's name by its key
        self._labels: dict[bytes, tuple[bytes, int]] = {}  # suffix and class
        self._wrong: dict[bytes, DataError] = {}  # labels that are none
        self._starts, self._sizes = array("q"), array("q")
        self._classes = Vocabulary()
        self._ignored: Counter[str] = Counter()

    def add(self, member: TarMember, windows: Windows) -> None:
        """Take in a member.

        Parameters
        ----------
        member : TarMember
            The next one.
        windows : Windows
            Of the shard, from which labels are read.

        Raises
        ------
        DataError
            When another member has its name, or it is no label though it should be.
        """
        name = member.name.removeprefix(b"./")
        base = name[name.rfind(b"/") + 1 :]
        stem, _, ending = base.partition(b".")
        if not stem:
            self._ignored["hidden file"] += 1
            return
        key, suffix = name[: len(name) - len(base) + len(stem)], b"." + ending.lower()
        if suffix in IMAGE_SUFFIXES:
            self._add_image(key, name, member)
        elif suffix in (b".cls", b".json"):
            self._add_label(key, name, suffix, _content(member, windows))
        else:
            short = ending.isalnum() and len(ending) <= 5
            self._ignored[f"{shown(suffix)} file" if short else "other file"] += 1

    def packed(self, mtime_ns: int, length: int, *, cut: bool) -> Packed:
        """Return all images with their labels.

        Parameters
        ----------
        mtime_ns : int
            When the shard last changed, nanoseconds.
        length : int
            Bytes of the shard.
        cut : bool
            Whether it was cut off, so that the last image's label may be missing.

        Returns
        -------
        Packed
            In the order in which they came.

        Raises
        ------
        DataError
            When an image has no label.
        """
        keys = [*self._images]
        if cut and keys and keys[-1] not in self._labels:
            self._ignored["image whose label was cut off"] += 1
            keys.pop()
        alone = [key for key in keys if key not in self._labels]
        if alone:
            if alone[0] in self._wrong:
                raise self._wrong[alone[0]]
            first = self._images[alone[0]]
            raise DataError(
                f"{shown(self._file)} has {plural(len(alone), 'image')} without a "
                f"label, first {shown(first)}: expected {shown(alone[0])}.cls or "
                f"{shown(alone[0])}.json beside it"
            )
        self._ignored["label without image"] += len(self._labels.keys() - set(keys))
        count = len(keys)
        return Packed(
            prefix=self._prefix,
            members=np.array([self._images[key] for key in keys], np.bytes_),
            starts=np.array(self._starts, np.int64)[:count],
            sizes=np.array(self._sizes, np.int64)[:count],
            names=self._classes.names,
            codes=np.array([self._labels[key][1] for key in keys], np.int32),
            mtime_ns=mtime_ns,
            length=length,
            ignored=+self._ignored,
        )

    def _add_image(self, key: bytes, name: bytes, member: TarMember) -> None:
        self._require_first(name, self._images.get(key), "image")
        self._images[key] = name
        self._starts.append(member.start)
        self._sizes.append(member.size)

    def _add_label(self, key: bytes, name: bytes, suffix: bytes, data: bytes) -> None:
        known, _ = self._labels.get(key, (None, 0))
        if known == suffix:
            self._require_first(name, key + suffix, "label")
        if known == b".cls":  # which says it shorter
            return
        here = f"{shown(self._file)}: {shown(name)}"
        try:
            label = data if suffix == b".cls" else _of_json(data, here)
        except DataError as error:  # unless a .cls follows, and all is well
            self._wrong[key] = error
            return
        label = label.strip(b"\0 \r\n\t")
        if not label or b"\0" in label:
            raise DataError(f"{here} holds no class name")
        self._labels[key] = suffix, self._classes.number(label)

    def _require_first(self, name: bytes, other: bytes | None, what: str) -> None:
        if other == name:
            raise DataError(
                f"{shown(self._file)} has two members called {shown(name)}; leave one "
                "of them out"
            )
        if other is not None:
            raise DataError(
                f"{shown(self._file)} has two {what}s with one key, {shown(other)} and "
                f"{shown(name)}; give each its own key"
            )


def _content(member: TarMember, windows: Windows) -> bytes:
    return windows.read(member.start, min(member.size, _LABEL_BYTES))


def _of_json(data: bytes, here: str) -> bytes:
    try:
        line = json.loads(data)
    except ValueError as error:
        raise DataError(f"{here} is not JSON: {error}") from None
    if not isinstance(line, dict):
        raise DataError(f'{here} is no JSON object; expected {{"label": ...}}')
    return said(line, LABELS, here).encode("utf-8", "surrogateescape")
