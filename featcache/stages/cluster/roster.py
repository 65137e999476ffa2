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
from featcache.stages.cluster.lookout import Lookout
from featcache.stages.cluster.members import Call, Event, Events, Member
from featcache.stages.cluster.orders import installed
from featcache.stages.processes import rebuilt

_LOOK = 5.0  # seconds between two looks at the cluster
_TELL = 15.0  # seconds without an actor until it is said why
_TELL_AGAIN = 60.0
_PING = 15.0  # seconds of silence after which an actor is asked whether it lives
_SILENT = 90.0  # seconds of silence after which it counts as lost
_FEWEST_LOSSES = 5  # one after another without a block done, before work is given up
KEPT = "what is done is kept: run the same command again to go on"


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
        self._largest = 0  # members at once
        self._refusal: Exception | None = None  # the last
        self._lookout = Lookout(call.ray, progress)
        self._nodes: list[Node] = []
        self._free = Node("", 0.0)
        self._looked = 0.0
        self._told = time.monotonic() + _TELL - _TELL_AGAIN

    @property
    def ready(self) -> list[Member]:
        """The members that can be given blocks."""
        return [member for member in self.members if member.state == "ready"]

    @property
    def exceptions(self) -> Any:  # noqa: ANN401 - a module
        """The errors that Ray raises."""
        return self._call.ray.exceptions

    def proved(self, member: Member) -> None:
        """Note that a block has come back.

        Parameters
        ----------
        member : Member
            From whom.
        """
        member.useful = self._proved = True
        self._losses = 0

    def look(self) -> list[Block]:
        """Hire, ask the silent whether they live, and say what is waited for.

        Returns
        -------
        list of Block
            That were with those who do not answer any more.

        Raises
        ------
        FeatcacheError
            When nobody can be hired, all are refused, or the head does not answer.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._lookout.look()
        seen = self._lookout.seen()
        if seen is not None:
            self._nodes, self._free = seen
            self._hire()
            self._require_somebody()
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
        error = self.trouble(member, future)
        if isinstance(error, FeatcacheError) and not (
            self._proved and isinstance(error, DeviceError)  # it may be that of memory
        ):
            self.refuse(member, error)
            return []
        if error is not None:
            return self.lose(member, error)
        answer = future.result() or {}
        member.heard()
        if name == "hello":
            self._greet(member, answer)
        elif name == "begun":
            member.state, member.said = "ready", answer
            self._progress.detail(
                f"{member.place}: ready, {plural(answer['threads'], 'thread')}"
            )
        return []

    def trouble(self, member: Member, future: "Future[Any]") -> Exception | None:
        """Return what an actor has to say instead of an answer.

        Parameters
        ----------
        member : Member
            Who was asked.
        future : Future
            Done.

        Returns
        -------
        Exception or None
            An error of featcache's, or Ray's where the actor or its answer is lost;
            None where there is an answer.

        Raises
        ------
        Exception
            A bug of ours, whose traceback tells, when no actor has worked yet.
        """
        exceptions = self.exceptions
        error = future.exception()
        if error is None:
            answer: Mapping[str, Any] = future.result() or {}
            return rebuilt(answer, member.place) if "error" in answer else None
        if not isinstance(error, exceptions.RayError):
            raise error
        if isinstance(error, exceptions.RayTaskError) and not self._proved:
            raise error
        assert isinstance(error, Exception)
        return error

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
        if not self._proved:
            raise reason
        member.state, self._refusal = "refused", reason
        self._progress.say(f"warning: {reason}; the others go on without it")

    def lose(self, member: Member, error: Exception) -> list[Block]:
        """Strike out an actor that is lost.

        Parameters
        ----------
        member : Member
            Whom.
        error : Exception
            What Ray, or the actor itself, says.

        Returns
        -------
        list of Block
            What it had in work.

        Raises
        ------
        DeviceError
            When featcache is not installed there, or too many are lost in a row that
            have done nothing.
        """
        if member.state == "lost":
            return []
        self.members.remove(member)
        blocks = member.let_go()
        self._looked = 0.0  # the cluster is another one now
        self._losses += not member.useful  # a machine that goes proves nothing
        said = str(error)
        if "No module named" in said:
            module = (
                said.split("No module named", 1)[1].split(maxsplit=1)[0].strip("'\".;,")
            )
            raise DeviceError(
                f"a node of the cluster has no module {module!r}: install the same "
                "featcache[ray] on every node as on this machine "
                f"(featcache {installed()['featcache']})"
            )
        if self._losses > _FEWEST_LOSSES + self._largest:
            raise DeviceError(
                f"{self._losses:,} actors were lost one after another, the last on "
                f"{member.place} ({first_line(said)}); {KEPT}. If memory is short "
                "there, lower --workers or --batch-size, or raise --actor-cpus"
            )
        again = f"; {plural(len(blocks), 'block')} to be computed again"
        self._progress.say(
            f"warning: {member.place} is lost ({first_line(said)})"
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
        self._largest = max(self._largest, len(self.members))
        waiting = [m for m in self.members if m.state == "asked for"]
        for member in waiting[: max(0, len(self.members) - wanted)]:
            self.members.remove(member)
            member.let_go()
        if not self.members:
            raise DeviceError(
                f"no node of the cluster has room for an actor, which asks for "
                f"{self._call.demand}: {self._owned()}; lower --actor-cpus, or pass "
                f"--actors N to wait for nodes to come. {KEPT.capitalize()}"
            )

    def _require_somebody(self) -> None:
        """Raise the last refusal where all are refused: nobody would ever work."""
        if self._refusal and all(each.state == "refused" for each in self.members):
            raise self._refusal

    def _tell(self) -> None:
        """Say why nobody works."""
        if any(member.state == "met" for member in self.members):
            self._progress.say("waiting for the actors to load the network")
            return
        free = self._free
        gpus = f" and {free.gpus:g} GPUs" if self._call.demand.gpus else ""
        self._progress.say(
            f"waiting for the cluster: an actor asks for {self._call.demand}; "
            f"{free.cpus:g} CPUs{gpus} are free ({self._owned()} in all)"
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
        # Also of those without work: while they count, nobody is hired in their place.
        for member in [m for m in self.members if m.state != "asked for"]:
            if now - member.since > _SILENT:
                silent = TimeoutError(f"it has not answered for {_SILENT:g} s")
                lost += self.lose(member, silent)
            elif now - member.since > _PING:
                member.ping()
        return lost


def first_line(said: str) -> str:
    """Return what an error says first.

    Parameters
    ----------
    said : str
        Of Ray's or of an actor's own.

    Returns
    -------
    str
        Without the advice behind it.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0].split("; ")[0].rstrip(".") if lines else "nobody knows why"
