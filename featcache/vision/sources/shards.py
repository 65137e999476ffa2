"""WebDataset shards as a source: tars of images with their labels beside them."""

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featcache.core.addresses import absolute, is_url
from featcache.core.errors import DataError
from featcache.core.locations import Member
from featcache.core.machine import cores
from featcache.core.manifest import Manifest
from featcache.core.progress import SILENT
from featcache.core.text import shown
from featcache.vision.listing import unreadable
from featcache.vision.sources.labelled import arrange, one_vocabulary, split_of_name
from featcache.vision.sources.patterns import (
    Tell,
    folder_of,
    has_pattern,
    matching_files,
    name_of,
    names_below,
)
from featcache.vision.sources.pieces import forget_pieces, opened
from featcache.vision.sources.remote import file_status
from featcache.vision.sources.shard_samples import Packed, ShardSamples, unpacked
from featcache.vision.sources.tars import BrokenTarError, Windows, tar_members
from featcache.vision.sources.trying import RemoteError

_WORTH_SAVING = 256  # images of a shard; fewer are read again in milliseconds


class Saved(Protocol):
    """Remembers what was read of a shard, as long as the shard stays what it is."""

    def find(
        self, shard: str, size: int, mtime_ns: int
    ) -> Mapping[str, npt.NDArray[Any]] | None:
        """Return what was kept of a shard in the state that it has now.

        Parameters
        ----------
        shard : str
            Its absolute address.
        size, mtime_ns : int
            Its bytes, and when it last changed.

        Returns
        -------
        mapping of str to ndarray, or None
            As `keep` was given it.
        """

    def keep(
        self,
        shard: str,
        size: int,
        mtime_ns: int,
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Keep what was read of a shard, where that can be.

        Parameters
        ----------
        shard : str
            Its absolute address.
        size, mtime_ns : int
            As they were before it was read.
        columns : mapping of str to ndarray
            See `featcache.vision.sources.shard_samples.unpacked`.
        """


@dataclass(frozen=True)
class TarShards:
    """Tar files in which ``KEY.jpg`` has its class in ``KEY.cls`` or ``KEY.json``.

    Parameters
    ----------
    pattern : str
        Names the shards: ``data/{000..099}.tar``.
    use_cut : bool
        Use the members before the place where a shard was cut off.
    tell : callable
        Hears a line for each shard that was.
    saved : Saved, optional
        Where the headers of large shards are remembered; without it all are read.
    """

    pattern: str
    use_cut: bool = False
    tell: Tell = SILENT.say
    saved: Saved | None = None

    @property
    def address(self) -> str:
        """The pattern with an absolute path."""
        return absolute(self.pattern)

    @property
    def name(self) -> str:
        """Of the one shard, or the folder that all lie in."""
        if not has_pattern(self.pattern):
            return Path(self.pattern).stem
        return name_of(folder_of(self.pattern)) or "shards"

    def scan(self) -> Manifest:
        """Return the manifest of the shards' images.

        Headers and labels alone are read, and none of a shard that was saved in its
        present state. An image's path is that of its shard and its own in it; its time
        is the shard's.

        Returns
        -------
        Manifest
            In the order of the shards' paths, then of their bytes.

        Raises
        ------
        DataError
            When a shard is missing, damaged or cut off, an image has no label or a
            name that another one has, or classes and splits make no sense.
        """
        root, files = folder_of(self.pattern), matching_files(self.pattern)
        names = names_below(files, root)
        # On a disk one after the other: two threads wait for the interpreter at each of
        # these small reads, and take longer together than one alone.
        threads = 2 * cores() if is_url(self.pattern) else 1
        forget_pieces()
        with ThreadPoolExecutor(threads) as pool:
            shards = [*pool.map(self._read, files, names)]
        starts = np.concatenate([shard.starts for shard in shards])
        if not len(starts):
            raise DataError(f"no image is in {shown(self.pattern)}")
        counts = [len(shard.starts) for shard in shards]
        paths = np.concatenate([shard.paths for shard in shards])
        sizes = np.concatenate([shard.sizes for shard in shards])
        words, codes = one_vocabulary([(each.names, each.codes) for each in shards])
        said = np.array([split_of_name(name) for name in names], np.uint8)
        classes, labels, splits = arrange(
            shown(self.pattern), words, codes, np.repeat(said, counts), paths
        )
        numbers = np.repeat(np.arange(len(files), dtype=np.int32), counts)
        return Manifest(
            root=root if is_url(root) else Path(root),
            classes=classes,
            paths=paths,
            labels=labels,
            splits=splits,
            sizes=sizes,
            mtimes_ns=np.repeat([shard.mtime_ns for shard in shards], counts),
            ignored=sum((shard.ignored for shard in shards), Counter()),
            index=ShardIndex(
                tuple(files),
                tuple(names),
                numbers,
                starts,
                sizes,
                tuple(shard.length for shard in shards),
            ),
        )

    def _read(self, file: str, name: str) -> Packed:
        prefix, address = os.fsencode(name), absolute(file)
        try:
            size, mtime_ns = file_status(file)
            if self.saved is not None:
                columns = self.saved.find(address, size, mtime_ns)
                if columns is not None:
                    return unpacked(columns, prefix, mtime_ns, size)
            samples = ShardSamples(file, prefix)
            with opened(file, size) as stream:
                windows = Windows(stream)
                cut = self._fill(samples, file, windows)
        except RemoteError as error:
            raise DataError(str(error)) from None
        except OSError as error:
            raise unreadable(os.fsencode(file), error) from error
        found = samples.packed(mtime_ns, windows.length, cut=cut)
        whole = not cut and windows.length == size
        if self.saved is not None and whole and len(found.starts) >= _WORTH_SAVING:
            self.saved.keep(address, size, mtime_ns, found.columns())
        return found

    def _fill(self, samples: ShardSamples, file: str, windows: Windows) -> bool:
        """Take in a shard's members; tell whether it was cut off behind them."""
        try:
            for member in tar_members(windows):
                samples.add(member, windows)
        except BrokenTarError as error:
            here = f"{shown(file)} {error.reason} (at byte {error.offset:,})"
            if not error.cut:
                raise DataError(f"{here}; make it anew or leave it out") from None
            if not self.use_cut:
                raise DataError(
                    f"{here}: it was cut off; copy it again, or pass --on-error skip "
                    "to use the images before that"
                ) from None
            self.tell(f"warning: {here}: it was cut off; the images before are used")
            return True
        return False


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where each image of the shards lies.

    Parameters
    ----------
    files : tuple of str
        The shards.
    names : tuple of str
        As images' paths begin with them.
    numbers : ndarray of int32, shape (N,)
        Each image's shard.
    starts : ndarray of int64, shape (N,)
        Its first byte there.
    sizes : ndarray of int64, shape (N,)
        Its bytes.
    lengths : tuple of int
        Bytes of each shard.
    """

    files: tuple[str, ...]
    names: tuple[str, ...]
    numbers: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    lengths: tuple[int, ...]

    def place(self, sample_index: int, path: str) -> Member:
        """Return where an image's bytes lie.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.
        path : str
            Its path, which begins with that of its shard.

        Returns
        -------
        Member
            Of the shard.
        """
        shard = int(self.numbers[sample_index])
        return Member(
            self.files[shard],
            path[len(self.names[shard]) + 1 :],
            int(self.starts[sample_index]),
            int(self.sizes[sample_index]),
            self.lengths[shard],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> "ShardIndex":
        """Return the index of some of the images.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Of the manifest.

        Returns
        -------
        ShardIndex
            Of n images.
        """
        return replace(
            self,
            numbers=self.numbers[rows],
            starts=self.starts[rows],
            sizes=self.sizes[rows],
        )
