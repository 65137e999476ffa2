"""The roster: which actors work for this process, as the cluster grows and shrinks."""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from featcache.core.blocks import Block
from featcache.core.demands import Node
from featcache.core.errors import DeviceError, FeatcacheError
from featcache.core.progress import Progress
from featcache.core.text import plural
from featcache.stages.cluster.connection import nodes_alive
from featcache.stages.cluster.members import Call, Event, Events, Member
from featcache.stages.cluster.orders import installed
from featcache.stages.processes import rebuilt

_LOOK = 5.0  # seconds between two looks at the cluster
_TELL = 15.0  # seconds without an actor until it is said why
_TELL_AGAIN = 60.0
_PING = 15.0  # seconds of silence after which an actor is asked whether it lives
_SILENT = 90.0  # seconds of silence after which it counts as lost
_FEWEST_LOSSES = 5  # one after another without a block done, before work is given up
_KEPT = "what is done is kept: run the same command again to go on"


class Roster:
    """The actors of this process.

    Parameters
    ----------
    call : Call
        What each is told.
    most : int
        How many there may be, whether or not the cluster has room for them yet; 0 for
        as many as there is room for.
    progress : Progress
        Hears of what is lost and what is waited for.

    Attributes
    ----------
    members : list of Member
        All that are not lost.
    events : queue
        What they have answered.
    """

    def __init__(self, call: Call, most: int, progress: Progress) -> None:
        self.members: list[Member] = []
        self.events: Events = Events()
        self._call, self._most, self._progress = call, most, progress
        self._hired = self._losses = 0
        self._proved = False  # whether a block has come back
        self._nodes: list[Node] = []
        self._looked = 0.0
        self._told = time.monotonic() + _TELL - _TELL_AGAIN

    @property
    def ready(self) -> list[Member]:
        """Those that can be given blocks."""
        return [member for member in self.members if member.state == "ready"]

    def proved(self) -> None:
        """Note that a block has come back."""
        self._proved, self._losses = True, 0

    def look(self) -> list[Block]:
        """Hire, ask the silent whether they live, and say what is waited for.

        Returns
        -------
        list of Block
            That were with those who do not answer any more.

        Raises
        ------
        DeviceError
            When nobody can be hired.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._nodes = nodes_alive(self._call.ray)
            self._hire()
        if self.ready:
            self._told = now + _TELL - _TELL_AGAIN
        elif now - self._told >= _TELL_AGAIN:
            self._told = now
            self._tell()
        return self._ask_the_silent(now)

    def take(self, event: Event) -> list[Block]:
        """Take in what an actor has answered of itself.

        Parameters
        ----------
        event : Event
            ``hello``, ``begun`` or ``pinged``.

        Returns
        -------
        list of Block
            That were with an actor that is lost.

        Raises
        ------
        FeatcacheError
            What keeps an actor from working, when none has worked yet.
        """
        name, member, _, future = event
        assert member is not None
        if member.state == "lost":
            return []
        answer = self.answer(member, future)
        if answer is None:
            return self.lose(member, future.exception()) if future.exception() else []
        member.heard()
        if name == "hello":
            self._greet(member, answer)
        elif name == "begun":
            member.state, member.said = "ready", answer
            self._progress.detail(
                f"{member.place}: ready, {plural(answer['threads'], 'thread')}"
            )
        return []

    def answer(self, member: Member, future: "Future[Any]") -> Mapping[str, Any] | None:
        """Return what an actor has answered.

        Parameters
        ----------
        member : Member
            Who was asked.
        future : Future
            Done.

        Returns
        -------
        mapping or None
            None where the actor or its answer is lost, or it is refused from now on.

        Raises
        ------
        FeatcacheError
            What keeps an actor from working, when none has worked yet.
        """
        exceptions = self._call.ray.exceptions
        error = future.exception()
        if isinstance(error, exceptions.RayTaskError):
            raise error  # a bug of ours: its traceback tells
        if error is not None:
            if not isinstance(error, exceptions.RayError):
                raise error
            return None
        answer: Mapping[str, Any] = future.result() or {}
        if "error" in answer:
            self.refuse(member, rebuilt(answer, member.place))
            return None
        return answer

    def refuse(self, member: Member, reason: Exception) -> None:
        """Give an actor no more work: its node cannot do it.

        It is kept, doing nothing, so that no other takes its place there.

        Parameters
        ----------
        member : Member
            Whom.
        reason : Exception
            Raised when no actor has worked yet.
        """
        if member.state == "refused":
            return
        if not self._proved or not isinstance(reason, FeatcacheError):
            raise reason
        member.state = "refused"
        self._progress.say(f"warning: {reason}; the others go on without it")

    def lose(self, member: Member, error: BaseException | None) -> list[Block]:
        """Strike out an actor that is lost.

        Parameters
        ----------
        member : Member
            Whom.
        error : BaseException, optional
            What Ray says.

        Returns
        -------
        list of Block
            What it had in work.

        Raises
        ------
        DeviceError
            When featcache is not installed there, or too many are lost in a row.
        """
        if member.state == "lost":
            return []
        self.members.remove(member)
        blocks = member.let_go()
        self._looked = 0.0  # the cluster is another one now
        self._losses += 1
        said = str(error or "")
        if "No module named" in said:
            module = (
                said.split("No module named", 1)[1].split(maxsplit=1)[0].strip("'\".;,")
            )
            raise DeviceError(
                f"a node of the cluster has no module {module!r}: install the same "
                "featcache[ray] on every node as on this machine "
                f"(featcache {installed()['featcache']})"
            )
        if self._losses > max(_FEWEST_LOSSES, 2 * len(self.members)):
            raise DeviceError(
                f"{self._losses:,} actors were lost one after another, the last on "
                f"{member.place} ({_first_line(said)}); {_KEPT}. If memory is short "
                "there, lower --workers or --batch-size, or raise --actor-cpus"
            )
        again = f"; {plural(len(blocks), 'block')} to be computed again"
        self._progress.say(
            f"warning: {member.place} is lost ({_first_line(said)})"
            f"{again if blocks else ''}"
        )
        return blocks

    def close(self) -> None:
        """End every actor."""
        for member in self.members:
            member.let_go()
        self.members.clear()

    def _hire(self) -> None:
        wanted = self._most or self._call.demand.room(self._nodes)
        for _ in range(wanted - len(self.members)):
            self.members.append(Member(self._call, self._hired, self.events))
            self._hired += 1
        waiting = [m for m in self.members if m.state == "asked for"]
        for member in waiting[: max(0, len(self.members) - wanted)]:
            self.members.remove(member)
            member.let_go()
        if not self.members:
            raise DeviceError(
                f"no node of the cluster has room for an actor, which asks for "
                f"{self._call.demand}: {self._owned()}; lower --actor-cpus, or pass "
                f"--actors N to wait for nodes to come. {_KEPT.capitalize()}"
            )

    def _tell(self) -> None:
        """Say why nobody works."""
        if any(member.state == "met" for member in self.members):
            self._progress.say("waiting for the actors to load the network")
            return
        free = self._call.ray.available_resources()
        gpus = f" and {free.get('GPU', 0):g} GPUs" if self._call.demand.gpus else ""
        self._progress.say(
            f"waiting for the cluster: an actor asks for {self._call.demand}; "
            f"{free.get('CPU', 0):g} CPUs{gpus} are free ({self._owned()} in all)"
        )

    def _owned(self) -> str:
        owned = [
            f"{node.address} has {node.cpus:g} CPUs"
            + (f", {node.gpus:g} GPUs" if node.gpus else "")
            for node in self._nodes[:8]
        ]
        more = len(self._nodes) - len(owned)
        return "; ".join(owned + ([f"{more} more"] if more else [])) or "no node"

    def _greet(self, member: Member, answer: Mapping[str, Any]) -> None:
        member.place = f"{answer['host']} ({member.number + 1})"
        here, there = installed(), answer["versions"]
        others = [
            f"{name} {there.get(name, 'none')} where this machine has {version}"
            for name, version in here.items()
            if there.get(name, "none") != version
        ]
        if others:
            self.refuse(
                member,
                DeviceError(
                    f"{member.place}: the node has {', '.join(others)}; features would "
                    "differ: install the same on every node of the cluster"
                ),
            )
            return
        member.begin()

    def _ask_the_silent(self, now: float) -> list[Block]:
        lost: list[Block] = []
        for member in [*self.ready]:
            if now - member.since > _SILENT:
                silent = TimeoutError(f"it has not answered for {_SILENT:g} s")
                lost += self.lose(member, silent)
            elif now - member.since > _PING:
                member.ping()
        return lost


def _first_line(said: str) -> str:
    """Return what an error of Ray's says first."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "nobody knows why"
