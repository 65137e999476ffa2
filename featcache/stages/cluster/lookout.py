"""The lookout: who is in the cluster, asked without waiting for the answer.

While the head of a cluster is away, Ray's calls to it do not return, and after a minute
Ray ends the process. So they are made on a thread, and who waits in vain says so first.
"""

import time
from concurrent.futures import Future
from threading import Thread
from types import ModuleType

from featcache.core.demands import Node
from featcache.core.errors import DeviceError
from featcache.core.progress import Progress
from featcache.stages.cluster.connection import nodes_alive

Sight = tuple[list[Node], Node]  # the machines alive; what is free of them, as one

_WARN = 10.0  # seconds without an answer until it is said
_DEAF = 40.0  # until the work ends; Ray itself would end the process after 60


class Lookout:
    """Looks at the cluster now and then.

    Parameters
    ----------
    ray : module
        Connected.
    progress : Progress
        Hears of a head that does not answer.
    """

    def __init__(self, ray: ModuleType, progress: Progress) -> None:
        self._ray, self._progress = ray, progress
        self._looking: Future[Sight] | None = None
        self._began = 0.0
        self._warned = False

    def look(self) -> None:
        """Begin to look, unless that is being done."""
        if self._looking is None:
            self._began, self._warned = time.monotonic(), False
            self._looking = Future()
            Thread(target=self._ask, args=(self._looking,), daemon=True).start()

    def seen(self) -> Sight | None:
        """Return what has been seen since it was last asked for.

        Returns
        -------
        tuple of list of Node and Node, or None
            The machines alive, and what is free of all of them together.

        Raises
        ------
        DeviceError
            When the head of the cluster does not answer any more.
        """
        if self._looking is None:
            return None
        if self._looking.done():
            found, self._looking = self._looking.result(), None
            return found
        waited = time.monotonic() - self._began
        if waited > _DEAF:
            raise DeviceError(
                f"the head of the Ray cluster has not answered for {_DEAF:g} s; what "
                "is done is kept: when it runs, run the same command again to go on"
            )
        if waited > _WARN and not self._warned:
            self._warned = True
            self._progress.say(
                f"warning: the head of the Ray cluster has not answered for {_WARN:g} "
                "s; the actors go on"
            )
        return None

    def _ask(self, answer: "Future[Sight]") -> None:
        try:
            free = Node.of("", self._ray.available_resources())
            answer.set_result((nodes_alive(self._ray), free))
        except BaseException as error:  # raised where the answer is asked for
            answer.set_exception(error)
