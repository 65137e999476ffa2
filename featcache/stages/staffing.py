"""Staffing: which engine does the work, made ready and let go of."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from featcache.core.clock import Clock
from featcache.core.locations import location_to_json
from featcache.core.manifest import Manifest
from featcache.core.progress import Progress
from featcache.core.specs import ExtractSpec, FeatureSpec
from featcache.stages.crew import Crew
from featcache.stages.devices import device_list
from featcache.stages.engines import one_device
from featcache.stages.tasks import Engine, Setting
from featcache.vision.reading import read_bytes
from featcache.vision.weights import State, packed

Read = Callable[[], State | None]


@dataclass(frozen=True)
class Staff:
    """What is known of the work before anybody does it.

    Parameters
    ----------
    how : ExtractSpec
        Which engine, on which devices.
    setting : Setting
        What to compute.
    wanted : FeatureSpec
        The features' identity.
    clock : Clock
        Hears what each stage takes.
    progress : Progress
        Hears which pieces are in use.
    """

    how: ExtractSpec
    setting: Setting
    wanted: FeatureSpec
    clock: Clock
    progress: Progress

    @contextmanager
    def engine(self, read: Read, manifest: Manifest) -> Iterator[Engine]:
        """Make an engine ready: this process, one for each device, or a cluster.

        Parameters
        ----------
        read : callable
            Gives the weights away, if they have been read: other processes than this
            one have no use for them in its memory.
        manifest : Manifest
            The images.

        Yields
        ------
        Engine
            Ready.

        Raises
        ------
        FeatcacheError
            When a device, the weights or the cluster is not what it should be.
        """
        with ExitStack() as stack:
            with self.clock.stage("start"):
                found = (
                    self._fleet(read, manifest, stack)
                    if self.how.engine == "ray"
                    else self._local(read, stack)
                )
            yield found

    def _local(self, read: Read, stack: ExitStack) -> Engine:
        devices = device_list(self.how.device)
        setting, clock, progress = self.setting, self.clock, self.progress
        if len(devices) == 1:
            state = read() or setting.source.load()
            return one_device(devices[0], setting, state, clock, progress)
        read()  # the others read the weights for themselves
        crew = Crew(devices, setting, self.wanted, clock, progress)
        stack.callback(crew.close)
        crew.start()
        return crew

    def _fleet(self, read: Read, manifest: Manifest, stack: ExitStack) -> Engine:
        from featcache.stages.cluster.connection import connected
        from featcache.stages.cluster.fleet import Fleet
        from featcache.stages.cluster.orders import Orders

        orders = Orders(
            setting=self.setting,
            wanted=self.wanted,
            device="",
            samples=_samples(manifest),
        )
        tensors = packed(read() or self.setting.source.load())
        ray = stack.enter_context(connected(self.how.address))
        fleet = Fleet(ray, orders, self.how, tensors, self.clock, self.progress)
        stack.callback(fleet.close)
        fleet.start()
        return fleet


def _samples(manifest: Manifest) -> list[object]:
    """Return places of the first, the middle and the last image that can be read."""
    last = len(manifest) - 1
    found = []
    for row in sorted({0, last // 2, last}):
        place = manifest.file(row)
        try:
            read_bytes(place, 1)
        except OSError:
            continue  # is named when its turn comes
        found.append(location_to_json(place))
    return found
