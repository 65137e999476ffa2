"""Where the time of an extraction went, and what would help."""

from collections.abc import Mapping
from dataclasses import dataclass

from featcache.core.clock import Clock

START = ("scan", "start")  # before the first image: the folder; torch and the network
WORK = ("read", "decode", "view", "forward", "write")  # the workers' stages, in order

_FULL = 0.85  # of its time, and a core counts as busy
_SHARED = 0.2  # of their time that workers wait: somebody else has their core
_NAMES = {
    "read": "reading the files",
    "decode": "decoding",
    "view": "resizing",
    "forward": "the network",
    "write": "writing the cache",
}
_ADVICE = {
    "read": "a faster disk, or more threads (--workers)",
    "decode": "more cores",
    "view": "more cores",
    "forward": "more cores or a CUDA GPU",
    "write": "a faster disk for the cache",
}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the stages of one extraction took.

    Parameters
    ----------
    stages : mapping of str to float
        Seconds; those of the workers are added up over the threads.
    busy : tuple of float
        Share of the time, in [0, 1], for which each worker kept a core busy.
    images : int
        That were computed.
    elapsed : float
        Seconds from the first image to the last.
    device : str
        Where the network runs; workers wait for any but ``cpu``.
    """

    stages: Mapping[str, float]
    busy: tuple[float, ...]
    images: int
    elapsed: float
    device: str = "cpu"

    @classmethod
    def of(
        cls, clock: Clock, *, images: int, elapsed: float, device: str = "cpu"
    ) -> "Timing":
        """Return what a clock has measured.

        Parameters
        ----------
        clock : Clock
            Of the run.
        images : int
            That were computed.
        elapsed : float
            Seconds from the first image to now, or to the last.
        device : str
            Where the network runs.

        Returns
        -------
        Timing
            As of now.
        """
        seconds = clock.busy().values()
        busy = tuple(min(1.0, own / elapsed) for own in seconds) if elapsed else ()
        return cls(
            stages=clock.seconds(),
            busy=busy,
            images=images,
            elapsed=elapsed,
            device=device,
        )

    @property
    def speed(self) -> float:
        """Speed in images per second; 0 where none was computed."""
        return self.images / self.elapsed if self.images else 0.0

    def shares(self) -> dict[str, float]:
        """Return the shares of the workers' stages in the workers' time.

        Returns
        -------
        dict of str to float
            In [0, 1], largest first; what is missing to 1 lies between the stages.
        """
        took = {name: self.stages.get(name, 0.0) for name in WORK}
        total = max(self.elapsed * len(self.busy), sum(took.values())) or 1.0
        ordered = sorted(took, key=lambda name: -took[name])
        return {name: took[name] / total for name in ordered}

    def describe(self) -> str:
        """Return where the time went, what limits the speed, and what would help.

        Returns
        -------
        str
            One line.
        """
        shares = self.shares().items()
        parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
        return f"{parts}; {self.bottleneck()}"

    def bottleneck(self) -> str:
        """Return what limits the speed, and what would help.

        Returns
        -------
        str
            One clause, such as ``bound by the network: 2 of 2 cores busy; more cores
            or a CUDA GPU would help``.
        """
        stage, workers = next(iter(self.shares())), len(self.busy)
        if stage == "forward" and self.device != "cpu":
            return (
                "bound by the GPU, for which the threads wait; a faster one, or "
                "--precision bfloat16, would help"
            )
        idle = 1 - sum(self.busy) / max(workers, 1)
        if stage not in ("read", "write") and idle > _SHARED:
            return (
                f"bound by {_NAMES[stage]}, on cores that others use too: the threads "
                f"got {100 * (1 - idle):.0f} % of {workers} cores"
            )
        busy = sum(share >= _FULL for share in self.busy)
        return (
            f"bound by {_NAMES[stage]}: {busy} of {workers} threads keep a core busy; "
            f"{_ADVICE[stage]} would help"
        )
