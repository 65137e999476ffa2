"""Several processes that fit one head: what each reads, and that they agree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.digests import array_digest
from featcache.core.errors import CacheMismatchError, DeviceError, SpecError
from featcache.core.machine import among_ranks
from featcache.core.manifest import SPLITS
from featcache.core.progress import SILENT, Progress
from featcache.core.resources import Resources
from featcache.core.text import shown
from featcache.store.parts import PartedCache
from featcache.store.table import FeatureTable

if TYPE_CHECKING:
    from featcache.train.ranks import Ranks


@dataclass(frozen=True)
class Company:
    """A process's company: itself alone, or the others that torchrun started, too.

    Parameters
    ----------
    ranks : Ranks, optional
        None for a process on its own.
    """

    ranks: "Ranks | None" = None

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.ranks is None or self.ranks.main

    def told(self, words: Callable[[], str]) -> str:
        """Return what the main process says.

        Parameters
        ----------
        words : callable
            Called in the main process alone.

        Returns
        -------
        str
            The same in every process.
        """
        if self.ranks is None:
            return words()
        said: str = self.ranks.told(words() if self.main else None)
        return said

    def progress(self, progress: Progress) -> Progress:
        """Return who hears of the work: of several processes, the main one's.

        Parameters
        ----------
        progress : Progress
            This process's.

        Returns
        -------
        Progress
            It, or none.
        """
        return progress if self.main else SILENT

    def opened(self, opener: Callable[[], FeatureTable]) -> FeatureTable:
        """Open a cache in every process, or fail in every one.

        Parameters
        ----------
        opener : callable
            Opens it.

        Returns
        -------
        FeatureTable
            Equal in all.

        Raises
        ------
        CacheError
            When it cannot be opened.
        CacheMismatchError
            When the processes do not find the same one.
        PeerError
            When another process cannot open it.
        """
        if self.ranks is None:
            return opener()
        with self.ranks.agreeing():
            table = opener()
        names = ("classes", "paths", "labels", "splits", "status")
        columns = array_digest(*(table.columns[name] for name in names)).hex()
        with self.ranks.agreeing():
            mine = [table.fingerprint, columns]
            if self.ranks.told(mine) != mine:
                raise CacheMismatchError(
                    f"the processes do not find the same images in "
                    f"{shown(table.path)}; give all machines the same files"
                )
        return table

    def share(self, resources: Resources, table: FeatureTable) -> Resources:
        """Return resources with this process's share of a cache.

        Parameters
        ----------
        resources : Resources
            As the user gave them, for each process.
        table : FeatureTable
            Of whose rows each process reads as many, and from few files.

        Returns
        -------
        Resources
            The same for a process on its own; memory that was not given is that of
            the machine, in equal parts.
        """
        if self.ranks is None:
            return resources
        from featcache.train.shares import RankShare, fair_share

        ranks = self.ranks
        mine = np.zeros(len(table), bool)
        for split in SPLITS:
            rows = table.rows(split)
            order = table.in_files(rows) if isinstance(table, PartedCache) else rows
            mine[fair_share(order, ranks.rank, ranks.count)] = True
        memory = resources.memory or resources.budget() // ranks.local_count
        return replace(resources, memory=memory, part=RankShare(ranks, mine))


@contextmanager
def company(resources: Resources, *, by_epochs: bool) -> Iterator[Company]:
    """Meet the other processes, if torchrun has started some.

    Parameters
    ----------
    resources : Resources
        Whose device must be the CPU then.
    by_epochs : bool
        Whether the solver is sgd.

    Yields
    ------
    Company
        Of a process on its own, nobody else.

    Raises
    ------
    DeviceError
        When several processes are to use a GPU.
    SpecError
        When they are to use a solver that works in one.
    TrainingError
        When the processes cannot meet.
    PeerError
        When another one has ended before its time.
    """
    if not among_ranks():
        yield Company()
        return
    if not by_epochs:
        raise SpecError(
            "only the solver sgd works in several processes, of which each reads a "
            "part of the features; start one, without torchrun"
        )
    if resources.device != "cpu":
        raise DeviceError(
            f"device {resources.device} was asked for, but several processes fit a "
            "head on the CPU; start one without torchrun, or leave --device out"
        )
    from featcache.train.ranks import Ranks

    with Ranks.joined("cpu") as ranks:
        yield Company(ranks)
