"""Dispatch and roster against a cluster that does what a test says."""

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.blocks import plan_blocks
from featcache.core.clock import Clock
from featcache.core.demands import Demand
from featcache.core.errors import DataError, DeviceError
from featcache.core.progress import SILENT
from featcache.core.status import Status
from featcache.stages.cluster import dispatch, lookout, roster
from featcache.stages.cluster.dispatch import Dispatch, fault
from featcache.stages.cluster.members import Call
from featcache.stages.cluster.orders import installed
from featcache.stages.cluster.roster import Roster
from featcache.stages.tasks import Work
from featcache.vision.rows import BlockRows
from tests.stages.test_crew import Details

pytestmark = pytest.mark.timeout(20)
SAID = {"threads": 1, "device": "cpu", "batch_size": 8, "pieces": {}}


class RayError(Exception):
    """What Ray raises, by Ray's names."""


class RayActorError(RayError):
    """The actor is gone."""


class RayTaskError(RayError):
    """Something was raised there."""


class Method:
    """Of an actor; the work gets a future to answer with, now or later."""

    def __init__(self, work) -> None:
        self._work = work

    def options(self, **_):
        return self

    def remote(self, *args):
        answer = Future()
        self._work(answer, *args)
        return SimpleNamespace(future=lambda: answer)


class Actor:
    """Answers as its cluster says."""

    def __init__(self, ray, number) -> None:
        self.number, self.killed = number, False
        self.hello = Method(lambda answer: ray.hello(self, answer))
        self.begin = Method(lambda answer, *_: ray.begin(self, answer))
        self.ping = Method(lambda answer: ray.ping(self, answer))
        self.compute = Method(
            lambda answer, numbers, *_: ray.compute(self, answer, numbers)
        )


class Cluster:
    """Stands in for Ray; every method may be replaced by a test."""

    def __init__(self, cpus=2) -> None:
        self.cpus, self.actors = cpus, []
        self.exceptions = SimpleNamespace(
            RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError
        )

    def options(self, **_):
        return self

    def remote(self):
        self.actors.append(Actor(self, len(self.actors)))
        return self.actors[-1]

    def nodes(self):
        resources = {"CPU": float(self.cpus)}
        return [{"Alive": True, "NodeManagerAddress": "n", "Resources": resources}]

    def available_resources(self):
        return {"CPU": 0.0}

    def kill(self, actor):
        actor.killed = True

    def hello(self, actor, answer):
        host = f"node{actor.number}"
        answer.set_result({"host": host, "versions": installed()})

    def begin(self, actor, answer):
        answer.set_result(SAID)

    def ping(self, actor, answer):
        answer.set_result(None)

    def compute(self, actor, answer, numbers):
        answer.set_result(good(numbers))


def good(numbers):
    """Rows in which each image's number stands."""
    n = len(numbers)
    features = np.repeat(np.array(numbers, np.float32)[:, None], 3, axis=1)
    return {
        "features": features,
        "digests": np.zeros((n, 32), np.uint8),
        "status": np.full(n, Status.OK, np.uint8),
        "reasons": {},
        "computed": n,
        "stages": {},
        "busy": {},
    }


class Pages:
    """What is written, and how often."""

    def __init__(self) -> None:
        self.written = []

    def prepare(self, block):
        rows = BlockRows.pending(block.size, 3, "float32")
        files = [Path(f"{row}.jpg") for row in range(block.start, block.stop)]
        return Work(block, rows, files, SimpleNamespace(empty=True))

    def finish(self, work):
        self.written.append((work.block.index, work.rows.features[:, 0].tolist()))

    def watch(self):
        """Nobody hangs here."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Look at the cluster all the time."""
    monkeypatch.setattr(roster, "_LOOK", 0.0)
    monkeypatch.setattr(dispatch, "_POLL", 0.01)


def work(ray, images=12, rows=2, progress=SILENT):
    """Have blocks computed; return what was written."""
    orders = SimpleNamespace(setting=SimpleNamespace(workers=1))
    crew = Roster(Call(ray, Demand(1.0), orders, None, 9, ray), 0, progress)
    pages = Pages()
    Dispatch(crew, plan_blocks(images, rows), pages, Clock()).run()
    assert sorted(pages.written) == [
        (i, [float(n) for n in range(rows * i, rows * i + rows)])
        for i in range(images // rows)
    ]
    return crew


def error_of(name):
    return {"error": name, "text": "its process was ended by SIGKILL; no other is left"}


FATES = {
    "good": lambda a, numbers: a.set_result(good(numbers)),
    "actor lost": lambda a, _: a.set_exception(RayActorError("it died\n at")),
    "answer lost": lambda a, _: a.set_exception(RayError("the answer is lost")),
    "worker lost": lambda a, _: a.set_result(error_of("DeviceError")),
    "wrong": lambda a, numbers: a.set_result({**good(numbers), "computed": -1}),
    "bug": lambda a, _: a.set_exception(RayTaskError("ZeroDivisionError")),
}


@given(fates=st.lists(st.sampled_from([*FATES]), max_size=4), cpus=st.integers(2, 6))
def test_each_block_is_written_once_whatever_becomes_of_actors(fates, cpus):
    """Lost actors, lost answers, wrong ones: all are computed again by somebody."""
    ray, left = Cluster(cpus), ["good", *fates]
    # Refused actors keep their places; so there is one more than may be refused.
    ray.cpus = max(cpus, fates.count("wrong") + 1)
    ray.compute = lambda actor, answer, numbers: FATES[left.pop(0) if left else "good"](
        answer, numbers
    )
    work(ray)


def test_an_answer_that_comes_late_is_not_taken(monkeypatch):
    """The block has gone to another when the silent one speaks."""
    monkeypatch.setattr(roster, "_SILENT", 0.3)
    monkeypatch.setattr(roster, "_PING", 9.0)
    ray, held = Cluster(1), []

    def compute(actor, answer, numbers):
        if actor.number == 0 and numbers[0] >= 4:
            held.append((answer, numbers))
            return
        for late, about in held:
            late.set_result(good(about))
        held.clear()
        answer.set_result(good(numbers))

    ray.compute = compute
    work(ray)
    assert len(ray.actors) == 2
    assert ray.actors[0].killed


def test_a_machine_with_all_its_actors_may_go():
    """Eight at once that have worked: no reason to give up."""
    ray, listener = Cluster(8), Details()
    held = []

    def compute(actor, answer, numbers):
        if actor.number >= 8 or numbers[0] < 16:
            answer.set_result(good(numbers))
            return
        held.append(answer)
        if len(held) == 16:
            for each in held:
                each.set_exception(RayActorError("the node died"))

    ray.compute = compute
    work(ray, images=64, progress=listener)
    assert sum("is lost (the node died)" in line for line in listener.lines) == 8
    told = [line for line in listener.lines if "2 blocks to be computed again" in line]
    assert len(told) == 8


def test_actors_that_never_do_a_block_end_the_work():
    """With the last one's words."""
    ray = Cluster(2)
    ray.compute = lambda _, answer, __: FATES["actor lost"](answer, [])
    with pytest.raises(DeviceError, match=r"lost.* one after another.*it died"):
        work(ray)


def test_a_block_that_takes_five_actors_down_is_named():
    """The images, and why the last one was lost."""
    ray = Cluster(3)
    ray.compute = lambda actor, answer, numbers: FATES[
        "worker lost" if numbers[0] == 6 else "good"
    ](answer, numbers)
    words = r"5 actors .*6\.jpg to 7\.jpg; the last: .*SIGKILL; what is done is kept"
    with pytest.raises(DeviceError, match=words):
        work(ray)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(RayTaskError("a bug"), RayTaskError, id="a bug of ours"),
        pytest.param(error_of("DataError"), DataError, id="what the images lack"),
    ],
)
def test_what_no_other_actor_does_better_is_raised(error, raised):
    """Not hidden behind a count of lost actors."""
    ray = Cluster(3)

    def compute(_, answer, numbers):
        if numbers[0] != 6:
            answer.set_result(good(numbers))
        elif isinstance(error, Exception):
            answer.set_exception(error)
        else:
            answer.set_result(error)

    ray.compute = compute
    with pytest.raises(raised):
        work(ray)


def refusing(ray, others):
    """Have some actors be of another version, once a block has been done."""
    proved, hello = threading.Event(), ray.hello
    plain = ray.compute

    def late(actor, answer):
        if actor.number not in others:
            hello(actor, answer)
            return
        said = {"host": f"node{actor.number}", "versions": {"torch": "2.0"}}
        threading.Thread(
            target=lambda: proved.wait(9) and answer.set_result(said)
        ).start()

    def compute(actor, answer, numbers):
        proved.set()
        plain(actor, answer, numbers)

    ray.hello, ray.compute = late, compute


def test_a_refused_actor_whose_machine_goes_makes_room(monkeypatch):
    """Else the machine that comes in its place would stand idle."""
    monkeypatch.setattr(roster, "_PING", 0.05)
    ray, listener, held = Cluster(2), Details(), []

    def compute(actor, answer, numbers):
        if actor.number == 2:
            while held:
                each, about = held.pop()
                each.set_result(good(about))
        if len(ray.actors) == 3 or numbers[0] == 0:
            answer.set_result(good(numbers))
        else:
            held.append((answer, numbers))

    def ping(actor, answer):
        if actor.number == 1:
            answer.set_exception(RayActorError("the node died"))
        else:
            answer.set_result(None)

    ray.compute, ray.ping = compute, ping
    refusing(ray, {1})
    work(ray, progress=listener)
    assert any("the others go on without it" in line for line in listener.lines)
    assert len(ray.actors) == 3


def test_blocks_of_a_refused_actor_that_falls_silent_are_done(monkeypatch):
    """It is asked whether it lives, as all others are."""
    monkeypatch.setattr(roster, "_PING", 0.1)
    monkeypatch.setattr(roster, "_SILENT", 0.5)
    ray, held = Cluster(2), []

    def compute(actor, answer, numbers):
        if actor.number == 1:
            held.append(answer)
            return
        answer.set_result(good(numbers))
        if len(held) == 2:  # the first is wrong; the second never comes
            FATES["wrong"](held[0], numbers)
            held.append(None)

    ray.compute = compute
    ray.ping = lambda actor, answer: actor.number or answer.set_result(None)
    listener = Details()
    work(ray, images=24, progress=listener)
    told = [line for line in listener.lines if "warning" in line]
    assert "go on without it" in told[0]
    assert "has not answered for 0.5 s); 1 block to be computed again" in told[1]


def test_an_actor_that_cannot_begin_for_want_of_memory_is_replaced():
    """Once others have worked; not refused for ever."""
    ray, held = Cluster(2), []

    def begin(actor, answer):
        if actor.number == 1:
            held.append(answer)
        else:
            answer.set_result(SAID)

    def compute(actor, answer, numbers):
        answer.set_result(good(numbers))
        if numbers[0] >= 8 and held:  # one block has been taken in by then
            held.pop().set_result(error_of("DeviceError"))

    ray.begin, ray.compute = begin, compute
    listener = Details()
    crew = work(ray, images=48, progress=listener)
    assert any("is lost (node1" in line for line in listener.lines)
    assert "refused" not in {member.state for member in crew.members}


def test_when_all_are_refused_it_is_an_error():
    """And no waiting for ever for a cluster that is full of them."""
    ray = Cluster(2)

    def compute(actor, answer, numbers):
        fate = "good" if numbers[0] < 2 else "wrong"
        FATES[fate](answer, numbers)

    ray.compute = compute
    with pytest.raises(DeviceError, match=r"is not what was asked for \(computed\)"):
        work(ray)


def test_a_head_that_does_not_answer_ends_the_work(monkeypatch):
    """Said first; then an error, before Ray ends the process without one."""
    monkeypatch.setattr(lookout, "_WARN", 0.1)
    monkeypatch.setattr(lookout, "_DEAF", 0.8)
    ray, away, listener = Cluster(1), threading.Event(), Details()
    nodes = ray.nodes
    ray.nodes = lambda: (len(ray.actors) and away.wait(5)) or nodes()
    ray.compute = lambda *_: None
    try:
        with pytest.raises(DeviceError, match=r"has not answered for 0\.8 s; what is"):
            work(ray, progress=listener)
    finally:
        away.set()
    assert [line for line in listener.lines if "the actors go on" in line]


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("features", np.zeros((2, 4), np.float32), "features"),
        ("features", np.zeros((2, 3), np.float16), "features"),
        ("features", [[0, 0, 0]] * 2, "features"),
        ("digests", np.zeros((1, 32), np.uint8), "digests"),
        ("status", np.array([1, 0], np.uint8), "status"),
        ("status", np.array([1, 9], np.uint8), "status"),
        ("reasons", {2: "x"}, "reasons"),
        ("reasons", None, "reasons"),
        ("computed", 3, "computed"),
        ("computed", "2", "computed"),
        ("stages", None, "times"),
        ("reasons", {1: "not an image"}, ""),
    ],
)
def test_an_answer_is_checked_before_it_is_written(column, value, named):
    """Another build of the same version may speak another language."""
    rows = BlockRows.pending(2, 3, "float32")
    assert fault(rows, 2, {**good([4, 5]), column: value}) == named
