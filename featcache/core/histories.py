"""How a training went, epoch by epoch."""

from dataclasses import dataclass

from featcache.core.reports import EpochRecord


@dataclass(frozen=True)
class RunHistory:
    """The epochs of one run.

    Parameters
    ----------
    name : str
        What the run is called; of its folder.
    records : tuple of EpochRecord
        At least one, in order.
    best_epoch : int
        From 1; its weights are the ones kept.
    finished : bool
        False where the training was interrupted, and may go on.
    """

    name: str
    records: tuple[EpochRecord, ...]
    best_epoch: int
    finished: bool = True
