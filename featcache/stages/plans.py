"""Deciding what an extraction has to do, from what lies on the disk."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from featcache.core.errors import CacheCorruptError, CacheMismatchError
from featcache.core.fingerprint import differences
from featcache.core.locations import Location
from featcache.core.manifest import Manifest, same_samples
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.store.header import Header
from featcache.store.reader import FeatureCache
from featcache.store.reuse import RACY_NS
from featcache.vision.reading import read_bytes

State = Literal["missing", "same", "changed", "other"]
Action = Literal["reuse", "resume", "extract", "refuse cache", "refuse partial"]


def decide(cache: State, partial: State, *, overwrite: bool) -> Action:
    """Return what to do.

    Parameters
    ----------
    cache : {"missing", "same", "changed", "other"}
        The complete file: equal spec and samples, equal spec but other samples, or
        another spec.
    partial : {"missing", "same", "changed", "other"}
        The incomplete file.
    overwrite : bool
        Whether a file with another spec may be replaced.

    Returns
    -------
    {"reuse", "resume", "extract", "refuse cache", "refuse partial"}
        The action.
    """
    if cache == "same":
        return "reuse"
    if cache == "other" and not overwrite:
        return "refuse cache"
    if partial == "same":
        return "resume"
    if partial == "other" and not overwrite:
        return "refuse partial"
    return "extract"


@dataclass(frozen=True, eq=False)
class Found:
    """A cache file as it lies on the disk, and what it is to the wanted one."""

    state: State
    cache: FeatureCache | None = None


def usable_rows(found: Found) -> int:
    """Return how many rows a file can give to another of the same spec.

    Parameters
    ----------
    found : Found
        As `examine` gives it.

    Returns
    -------
    int
        0 where there is no file or its spec is another.
    """
    if found.cache is None or found.state not in ("same", "changed"):
        return 0
    return int((found.cache.status == Status.OK).sum())


def examine(
    path: Path,
    wanted: FeatureSpec,
    manifest: Manifest,
    *,
    rehash: bool,
    lenient: bool = False,
) -> Found:
    """Compare a file with what is wanted.

    Parameters
    ----------
    path : Path
        Complete or incomplete cache; may be missing.
    wanted : FeatureSpec
        Identity of the features asked for.
    manifest : Manifest
        The folder as it is now.
    rehash : bool
        Read every image file again instead of trusting size and time.
    lenient : bool
        Take a damaged file for a missing one.

    Returns
    -------
    Found
        With the opened file where it has the wanted spec.

    Raises
    ------
    CacheCorruptError
        When the file is damaged and ``lenient`` is off.
    """
    if not path.exists():
        return Found("missing")
    try:
        cache = FeatureCache(path)
        if cache.spec != wanted:
            return Found("other", cache)
        if not cache.manifest_sound():
            raise CacheCorruptError(
                f"{shown(path)} is damaged: its paths or labels do not match their "
                "digest; delete it, or pass --overwrite"
            )
    except CacheCorruptError:
        if lenient:
            return Found("missing")
        raise
    same = same_samples(cache.manifest_columns(), manifest.columns())
    if same and _bytes_are_the_same(cache, manifest, rehash=rehash):
        return Found("same", cache)
    return Found("changed", cache)


def _bytes_are_the_same(
    cache: FeatureCache, manifest: Manifest, *, rehash: bool
) -> bool:
    """Read again what size and time alone cannot vouch for."""
    began = int(cache.header.provenance.get("began_ns", 0))
    doubtful = (manifest.mtimes_ns >= began - RACY_NS) | (
        cache.status == Status.UNREADABLE  # a permission leaves size and time alone
    )
    computed = cache.status != Status.PENDING
    rows = np.flatnonzero(computed if rehash else computed & doubtful)
    if not len(rows):
        return True

    def same(row: int) -> bool:
        digest = image_digest(manifest.file(row))
        return bool(digest == cache.columns["digests"][row].tobytes())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return all(pool.map(same, rows.tolist()))


def image_digest(place: Location) -> bytes:
    """Return the digest of an image as a cache holds it.

    Parameters
    ----------
    place : Path or Member
        A file is read in pieces, a part of one whole.

    Returns
    -------
    bytes
        sha256, 32 bytes; zeros for what cannot be read.
    """
    try:
        if not isinstance(place, Path):
            return hashlib.sha256(read_bytes(place)).digest()
        with place.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return bytes(32)


def mismatch(header: Header, wanted: FeatureSpec) -> CacheMismatchError:
    """Return the error that names every field in which a cache differs.

    Parameters
    ----------
    header : Header
        Of the file on the disk.
    wanted : FeatureSpec
        What was asked for.

    Returns
    -------
    CacheMismatchError
        To be raised.
    """
    fields = "; ".join(
        f"{name} is {found!r} in the file, {asked!r} was asked for"
        for name, found, asked in differences(asdict(header.spec), asdict(wanted))
    )
    stem = header.path.name.removesuffix(".partial").removesuffix(".h5")
    other = header.path.with_name(f"{stem}-{wanted.fingerprint[:8]}.h5")
    return CacheMismatchError(
        f"{shown(header.path)} was made with other settings: {fields}. Choose another "
        f"file with --cache {shown(other)}, or replace this one with --overwrite"
    )
