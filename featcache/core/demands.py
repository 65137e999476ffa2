"""Demands: what one extraction actor asks of a cluster, and how many have room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from featcache.core.errors import DeviceError
from featcache.core.text import plural

_MOST_CPUS = 8  # of one actor: more threads wait for one interpreter
_WELL_USED = 0.9  # of a cluster's CPUs, so that larger actors are worth their rest
_TINY = 1e-6  # Ray counts CPUs in ten-thousandths


@dataclass(frozen=True)
class Node:
    """What a machine of a cluster has, in use or not.

    Parameters
    ----------
    address : str
        For people.
    cpus : float
        As the cluster counts them; not always whole, nor the machine's own.
    gpus : float
        Likewise.
    """

    address: str
    cpus: float
    gpus: float = 0.0

    @classmethod
    def of(cls, address: str, resources: Mapping[str, float]) -> "Node":
        """Return a node as Ray describes it.

        Parameters
        ----------
        address : str
            Its name or number.
        resources : mapping of str to float
            ``CPU`` and ``GPU``, where there are any.

        Returns
        -------
        Node
            With what is named there.
        """
        return cls(address, resources.get("CPU", 0.0), resources.get("GPU", 0.0))


@dataclass(frozen=True)
class Demand:
    """What one actor asks for.

    Parameters
    ----------
    cpus : float
        Above 0.
    gpus : int
        0 or 1.
    """

    cpus: float
    gpus: int = 0

    def __str__(self) -> str:
        cpus = f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        return f"{cpus} and a GPU" if self.gpus else cpus

    @property
    def threads(self) -> int:
        """How many threads suit the CPUs, at least one."""
        return max(1, floor(self.cpus + _TINY))

    def room(self, nodes: Sequence[Node]) -> int:
        """Return how many actors a cluster has room for when nobody else uses it.

        Parameters
        ----------
        nodes : sequence of Node
            That are alive.

        Returns
        -------
        int
            An actor's CPUs and GPU have to be of one machine.
        """
        return sum(self._room(node) for node in nodes)

    def _room(self, node: Node) -> int:
        room = floor(node.cpus / self.cpus + _TINY)
        return min(room, floor(node.gpus + _TINY)) if self.gpus else room


def suitable(nodes: Sequence[Node], device: str, cpus: float = 0.0) -> Demand:
    """Return what one actor should ask for on a cluster.

    Parameters
    ----------
    nodes : sequence of Node
        That are alive.
    device : {"auto", "cpu", "cuda"}
        auto: a GPU where the cluster has one.
    cpus : float
        Of an actor, as the user wants it; 0 for what uses the cluster well.

    Returns
    -------
    Demand
        With a GPU its share of its machine's CPUs, at most 8; without one the most
        CPUs, up to 8, that leave less than a tenth of the cluster's over.

    Raises
    ------
    DeviceError
        When GPUs are wanted and there is none.
    """
    with_gpu = [node for node in nodes if node.gpus >= 1]
    if device == "cuda" and not with_gpu:
        raise DeviceError(
            "--device cuda: no machine of the cluster has a GPU that Ray knows of "
            f"({plural(len(nodes), 'node')}); start them with 'ray start --num-gpus', "
            "or pass --device cpu"
        )
    if with_gpu and device != "cpu":
        share = min(node.cpus / floor(node.gpus) for node in with_gpu)
        share = min(_MOST_CPUS, floor(share) or share)
        return Demand(cpus or share or 1.0, 1)
    return Demand(cpus or _whole(nodes))


def _whole(nodes: Sequence[Node]) -> float:
    """Return the CPUs of an actor that leave little of a cluster unused."""
    owned = [node.cpus for node in nodes if node.cpus > 0]
    if not owned:
        return 1.0
    for cpus in range(_MOST_CPUS, 1, -1):
        used = cpus * sum(floor(own / cpus) for own in owned)
        if used >= _WELL_USED * sum(owned):
            return float(cpus)
    return min(1.0, max(owned))
