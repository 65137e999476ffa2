"""The rows that an audit judges: features, paths and names of a cache."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from featcache.core.audits import Finding
from featcache.core.features import Features, Rows
from featcache.core.manifest import SPLITS
from featcache.core.text import shown
from featcache.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Audited:
    """A cache and its usable rows; rows below are numbers among these."""

    cache: FeatureTable
    features: Features

    @cached_property
    def splits(self) -> npt.NDArray[np.uint8]:
        """Split of each row."""
        return self.cache.splits[self.features.sample_index]

    @cached_property
    def digests(self) -> npt.NDArray[np.uint8]:
        """Digest of each row's image."""
        return np.asarray(self.cache.columns["digests"])[self.features.sample_index]

    def path(self, row: int) -> str:
        """Return a row's path.

        Parameters
        ----------
        row : int
            Among those that are judged.

        Returns
        -------
        str
            As people may read it.
        """
        return shown(self.cache.paths[self.features.sample_index[row]])

    def class_name(self, label: int) -> str:
        """Return a class's name.

        Parameters
        ----------
        label : int
            In [0, C).

        Returns
        -------
        str
            As people may read it.
        """
        return shown(self.cache.classes[label])

    def finding(
        self,
        kind: str,
        row: int,
        score: float,
        reason: str,
        *,
        other: int | None = None,
        likely: int | None = None,
    ) -> Finding:
        """Return what is told of a row.

        Parameters
        ----------
        kind : str
            What was found.
        row : int
            Among those that are judged.
        score : float
            How strongly.
        reason : str
            In words.
        other : int, optional
            The row that it was compared with.
        likely : int, optional
            The label that it may rather have.

        Returns
        -------
        Finding
            With paths and names.
        """
        return Finding(
            kind=kind,
            path=self.path(row),
            score=round(float(score), 4),
            reason=reason,
            split=SPLITS[self.splits[row]],
            label=self.class_name(int(self.features.y[row])),
            other=None if other is None else self.path(other),
            likely=None if likely is None else self.class_name(likely),
        )


@dataclass(frozen=True, eq=False)
class Found:
    """What a check found: numbers, of which findings are made when they are asked for.

    Parameters
    ----------
    kind : str
        One of `featcache.core.audits.KINDS`.
    rows : ndarray of int64, shape (m,)
        The worst first.
    tell : callable
        Makes a row's finding.
    """

    kind: str
    rows: Rows
    tell: Callable[[int], Finding]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Finding]:
        return (self.tell(int(row)) for row in self.rows)

    def first(self, most: int) -> Iterator[Finding]:
        """Make some findings.

        Parameters
        ----------
        most : int
            How many at most.

        Returns
        -------
        iterator of Finding
            The worst.
        """
        return islice(self, most)
