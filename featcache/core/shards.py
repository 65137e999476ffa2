"""Shards: one of n parts of a manifest, so that n processes extract a folder.

An image's part follows from its own path and from n, and from nothing else: adding
images moves no other, and two parts never overlap, whatever each process saw of a
folder that was changing. What tars and tables hold goes with the path of its file.
Classes, labels and splits are those of the whole.
"""

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.digests import array_digest
from featcache.core.errors import DataError, SpecError
from featcache.core.manifest import Manifest
from featcache.core.text import plural, shown

_PERSON = b"shard"  # of the hash: a sample's part says nothing of its split
_NAME = re.compile(r"-part-(\d+)-of-(\d+)(?=\.h5$)")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``.

    Parameters
    ----------
    index : int
        From 1, as people count.
    count : int
        n.

    Raises
    ------
    SpecError
        When there is no such part.

    Examples
    --------
    >>> str(Shard.parse("3/16"))
    '3/16'
    >>> Shard(3, 16).file(Path("cache/photos-resnet18.h5")).name
    'photos-resnet18-part-3-of-16.h5'
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SpecError(
                f"there is no part {self}: parts are counted from 1, so that of "
                f"{self.count} the first is 1/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the part that a text names.

        Parameters
        ----------
        text : str
            Such as ``3/16``.

        Returns
        -------
        Shard
            The third of 16.

        Raises
        ------
        SpecError
            When it names none.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found:
            raise SpecError(
                f"{text!r} is no part; expected I/N, such as 3/16 for the third of 16 "
                "parts; or auto, for what torchrun, SLURM or Kubernetes say"
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def words(self) -> str:
        """Of the part, in words."""
        return f"part {self.index} of {self.count}"

    def file(self, path: Path) -> Path:
        """Return the name of this part of a cache.

        Parameters
        ----------
        path : Path
            ``NAME.h5``, of the whole.

        Returns
        -------
        Path
            ``NAME-part-I-of-N.h5`` beside it.
        """
        tail = f"-part-{self.index}-of-{self.count}{path.suffix}"
        return path.with_name(f"{path.stem}{tail}")

    def take(self, manifest: Manifest) -> Manifest:
        """Return this part of a manifest.

        Parameters
        ----------
        manifest : Manifest
            The whole.

        Returns
        -------
        Manifest
            Its rows in their order, with the classes of the whole.

        Raises
        ------
        DataError
            When none of the images is in this part.
        """
        rows = np.flatnonzero(image_parts(manifest, self.count) == self.index)
        if not len(rows):
            raise DataError(
                f"none of the {plural(len(manifest), 'image')} of "
                f"{shown(manifest.root)} is in {self.words}; cut it into fewer parts"
            )
        return manifest.take(rows)


def image_parts(manifest: Manifest, count: int) -> npt.NDArray[np.int64]:
    """Return the part of each image of a manifest, from 1.

    Images of one tar or table go together, so that a process reads few of these files,
    and those from front to back; unless files are so few that a part would have none.

    Parameters
    ----------
    manifest : Manifest
        The whole.
    count : int
        How many parts there are.

    Returns
    -------
    ndarray of int64, shape (N,)
        Each follows from the hash of the image's path, or of that of its file.
    """
    if manifest.index is not None:
        names = np.array([os.fsencode(name) for name in manifest.index.names])
        found = parts(names, count)[manifest.index.numbers]
        if np.bincount(found, minlength=count + 1)[1:].all():
            return found
    return parts(manifest.paths, count)


def parts(paths: npt.NDArray[np.bytes_], count: int) -> npt.NDArray[np.int64]:
    """Return the part of each path, from 1.

    Parameters
    ----------
    paths : ndarray of bytes, shape (n,)
        Relative to the data folder.
    count : int
        How many parts there are.

    Returns
    -------
    ndarray of int64, shape (n,)
        Each part is as likely. Of 2 n parts, two make up one of n.
    """
    if count == 1:
        return np.ones(len(paths), np.int64)
    each = (1 + (_hash(path) * count >> 64) for path in paths)
    return np.fromiter(each, np.int64, len(paths))


def _hash(path: bytes) -> int:
    digest = hashlib.blake2b(path, digest_size=8, person=_PERSON).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True)
class ShardRecord:
    """What the cache of a part remembers: which part it is, and of what.

    Parameters
    ----------
    index, count : int
        See `Shard`.
    images : int
        Of the whole manifest.
    whole : str
        Digest of the whole manifest's paths, labels, splits and classes: equal in all
        parts of one state of a folder.
    """

    index: int
    count: int
    images: int
    whole: str

    @classmethod
    def of(cls, shard: Shard, manifest: Manifest) -> "ShardRecord":
        """Return what is remembered of a part.

        Parameters
        ----------
        shard : Shard
            The part.
        manifest : Manifest
            The whole.

        Returns
        -------
        ShardRecord
            To be written into the part's provenance.
        """
        columns = manifest.columns()
        named = (columns[k] for k in ("classes", "paths", "labels", "splits"))
        whole = array_digest(*named).hex()
        return cls(shard.index, shard.count, len(manifest), whole)

    @classmethod
    def read(cls, provenance: Mapping[str, Any]) -> "ShardRecord | None":
        """Return what a cache's provenance says.

        Parameters
        ----------
        provenance : mapping
            From the file.

        Returns
        -------
        ShardRecord or None
            None for a cache that is no part.

        Raises
        ------
        ValueError
            When it is no such record.
        """
        fields = provenance.get("shard")
        if fields is None:
            return None
        try:
            record = cls(**fields)
            numbers = (record.index, record.count, record.images)
            fits = all(type(n) is int for n in numbers) and type(record.whole) is str
            if fits and 1 <= record.index <= record.count:
                return record
        except TypeError:
            pass
        raise ValueError(f"shard of its provenance is {fields!r}")

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        return Shard(self.index, self.count)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data.

        Returns
        -------
        dict
            For `read`.
        """
        return asdict(self)


def set_pattern(path: Path) -> Path | None:
    """Return the pattern of the parts that a file belongs to, by its name.

    Parameters
    ----------
    path : Path
        A cache.

    Returns
    -------
    Path or None
        ``NAME-part-*-of-N.h5``, whatever else would make a pattern escaped; None
        where the name is not that of a part.

    Examples
    --------
    >>> set_pattern(Path("cache/photos-part-3-of-16.h5")).name
    'photos-part-*-of-16.h5'
    >>> set_pattern(Path("cache/photos.h5"))
    """
    found = _NAME.search(path.name)
    if found is None:
        return None
    stem = path.with_name(path.name[: found.start()])
    return Path(f"{glob.escape(str(stem))}-part-*-of-{found[2]}.h5")
