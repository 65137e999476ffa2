"""Extraction on a Ray cluster: the local engine's bytes, whatever is lost."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest

import featcache
from featcache.core.errors import (
    BadImagesError,
    DataError,
    DependencyError,
    DeviceError,
    SpecError,
)
from featcache.core.progress import SILENT
from featcache.core.specs import ExtractSpec
from featcache.core.status import Status
from featcache.stages.cluster import dispatch, roster
from featcache.store.reader import FeatureCache
from featcache.store.writer import CacheWriter
from tests.conftest import make_photos, picture
from tests.ray_cluster import RayCluster, cluster, descendants, kill
from tests.stages.test_crew import Details, contents

ROOT = Path(__file__).parents[2]
LOCAL = ExtractSpec(device="cpu", on_error="skip")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Loaded by every Python that is started with its folder on the path: reading an image
# takes as long as a file says, and one named crash.jpg is a crash.
HOSTILE = """
import signal
import time
from pathlib import Path
from featcache.vision import decode as module

plain = module.read_file
seconds = Path({seconds!r})

def read_file(path):
    if path.name == "crash.jpg":
        signal.raise_signal(signal.SIGSEGV)  # of this thread, as a real one
    time.sleep(float(seconds.read_text()))
    return plain(path)

module.read_file = read_file
"""
# A node that sees other files than this machine.
BLIND = """
from featcache.vision import reading as module

def read_bytes(place, limit=None):
    raise FileNotFoundError(2, "No such file or directory", str(place))

module.read_bytes = read_bytes
"""
BARE = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "featcache":
            raise ModuleNotFoundError("No module named 'featcache'", name=name)

sys.meta_path.insert(0, Finder())
"""


class Site:
    """A folder of modules for every Python that is started from here on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = os.pathsep.join([str(folder), str(ROOT)])

    def put(self, code: str, name: str = "sitecustomize.py") -> None:
        """Write a module."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        new = self.folder / "new"
        new.write_text(code)
        new.replace(self.folder / name)  # whole at any time

    def slow(self, seconds: float) -> None:
        """Have each image take so long."""
        self.put(str(seconds), "seconds")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cluster of two nodes for most of these tests, and its site."""
    site = Site(tmp_path_factory.mktemp("shared"))
    site.put(HOSTILE.format(seconds=str(site.folder / "seconds")))
    site.slow(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", site.path)
        with cluster() as nodes:
            yield nodes, site


@pytest.fixture
def nodes(shared):
    """Two nodes of one CPU each."""
    yield shared[0]
    shared[1].slow(0)


@pytest.fixture
def slow(shared):
    """Have each image take so many seconds to read on a node."""
    return shared[1].slow


@pytest.fixture(scope="module")
def head():
    """A cluster without a CPU, to which nodes are added."""
    with cluster(nodes=1, cpus=0) as nodes:
        yield nodes


@pytest.fixture
def strange(head, tmp_path, monkeypatch):
    """Add a node to that cluster, on the path of whose Pythons a module lies."""
    site, added = Site(tmp_path / "site"), []
    monkeypatch.setenv("PYTHONPATH", site.path)

    def add(code, name="sitecustomize.py"):
        site.put(code, name)
        added.append(head.add_node(cpus=1))
        return head

    yield add
    for node in added:
        head.kill_node(node)


@pytest.fixture
def extract(tmp_path):
    """Extract with random weights into a cache of this name."""

    def run(data, nodes: RayCluster | None, name="it.h5", progress=SILENT, **how):
        spec = LOCAL
        if nodes is not None:
            how = {"on_error": "skip", "actor_cpus": 1.0, **how}
            spec = ExtractSpec(engine="ray", address=nodes.address, **how)
        cache = tmp_path / name
        return featcache.extract(
            data, spec, weights="random:0", cache=cache, progress=progress
        )

    return run


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """80 images, in blocks of 8."""
    folder = tmp_path_factory.mktemp("many") / "many"
    return make_photos(folder, {"train": 24, "val": 16})


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """What one process makes of them."""
    cache = tmp_path_factory.mktemp("whole") / "whole.h5"
    return contents(featcache.extract(many, LOCAL, weights="random:0", cache=cache))


class At(Details):
    """Lets somebody wait until so many images are done."""

    def __init__(self, count) -> None:
        super().__init__()
        self._count, self._reached = count, threading.Event()

    def advance(self, count):
        super().advance(count)
        if self.advanced >= self._count:
            self._reached.set()

    def wait(self):
        assert self._reached.wait(120)


@contextmanager
def meanwhile(work, *args, **settings):
    """Do work on another thread, since Ray starts nodes on the main one alone."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work, *args, **settings)


def told(listener, words: str) -> bool:
    return any(words in line for line in [*listener.lines, *listener.details])


def test_a_cluster_gives_the_bytes_of_one_process(photos, extract, nodes):
    """Every column, the journal too; bad images are named; stages are counted."""
    (photos / "train/ants/00.jpg").write_bytes(b"no image")
    os.rename(  # noqa: PTH104 - bytes that are no text
        photos / "train/ants/01.jpg",
        os.fsencode(photos / "train/ants") + b"/caf\xe9 \n.jpg",
    )
    one, listener = extract(photos, None, "one.h5"), Details()
    two = extract(photos, nodes, "two.h5", listener)
    assert contents(one) == contents(two)
    assert (two.report.computed, two.report.skipped) == (19, 1)
    assert two.report.bad_images == one.report.bad_images
    assert listener.advanced == 20
    assert told(listener, "2 actors ready")
    pieces = dict(two.report.pieces)
    assert pieces.pop("engine").startswith("Ray ")
    assert pieces == one.report.pieces
    assert set(two.report.stages) == set(one.report.stages)
    assert two.report.stages["forward"] > 0
    assert sorted(p.name for p in two.path.parent.glob("two.h5*")) == ["two.h5"]


def test_nodes_come_and_one_is_killed(many, whole, extract, nodes, slow, monkeypatch):
    """Who comes is given work; the dead one's blocks in flight go to the others."""
    monkeypatch.setattr(roster, "_LOOK", 0.5)
    listener = At(8)
    with meanwhile(extract, many, nodes, progress=listener) as extraction:
        listener.wait()
        slow(3)
        third = nodes.add_node()
        while sum("ready, 1 thread" in line for line in listener.details) < 3:
            assert not extraction.done(), extraction.result()
            time.sleep(0.1)
        time.sleep(1)  # it has blocks by then
        nodes.kill_node(third)
        while not told(listener, "is lost"):
            assert not extraction.done(), extraction.result()
            time.sleep(0.1)
        slow(0)
        cache = extraction.result(120)
    assert contents(cache) == whole
    assert cache.report.computed == listener.advanced == 80
    assert told(listener, "to be computed again")
    assert len(cache.report.busy) >= 2


def driver(many, cache, nodes):
    """Start the command; a process group of its own, as a shell gives it."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "featcache", "extract", many, "--cache", cache),
            *("--weights", "random:0", "--engine", "ray", "--actor-cpus", "1"),
            *("--address", nodes.address),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def begun(cache: Path, process, images: int) -> None:
    """Wait until so many images of an unfinished cache are done."""
    partial = cache.with_name(f"{cache.name}.partial")
    while not (partial.exists() and done(partial) >= images):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def done(partial: Path) -> int:
    """Count the rows that an unfinished cache has."""
    found = FeatureCache(partial)
    count = int((found.status == Status.OK).sum())
    found.close()
    return count


def test_a_killed_driver_goes_on_from_the_journal(
    many, whole, extract, nodes, slow, tmp_path
):
    """What was written is not computed again; no actor of the dead one is left."""
    slow(0.1)
    process = driver(many, tmp_path / "it.h5", nodes)
    begun(tmp_path / "it.h5", process, 24)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    slow(0)
    again = extract(many, nodes)
    assert 0 < again.report.computed <= 56
    assert contents(again) == whole


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "stopped; what is done is kept in"),
        (signal.SIGTERM, 143, "2 actors ready"),
    ],
)
def test_a_signal_ends_it_in_order(many, nodes, slow, tmp_path, number, code, words):
    """As with the local engine; the exit code is a shell's. No file is left there."""
    before = {*Path(tempfile.gettempdir()).glob("featcache-*")}
    slow(0.1)
    process = driver(many, tmp_path / "it.h5", nodes)
    begun(tmp_path / "it.h5", process, 8)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert words in said
    assert "Traceback" not in said
    assert {*Path(tempfile.gettempdir()).glob("featcache-*")} <= before


def test_workers_that_are_killed_again_and_again(many, whole, extract, nodes, slow):
    """As when memory is short: their actors are replaced, and no image is blamed."""
    slow(0.2)
    listener = At(8)
    with meanwhile(extract, many, nodes, progress=listener) as extraction:
        listener.wait()
        while sum("is lost" in line for line in listener.lines) < 3:
            assert not extraction.done(), extraction.result()
            for pid in descendants([*nodes.workers(0), *nodes.workers(1)]):
                with suppress(OSError):
                    if b"stages.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        kill([pid])
            time.sleep(0.1)
        slow(0)
        cache = extraction.result(120)
    assert told(listener, "was ended by SIGKILL")
    assert contents(cache) == whole


def test_an_image_that_crashes_the_decoder_costs_itself(photos, extract, nodes):
    """Its actor lives on, tries it apart, and leaves it out, by name."""
    (photos / "train/ants/00.jpg").rename(photos / "train/ants/crash.jpg")
    listener = Details()
    with pytest.raises(BadImagesError) as caught:
        extract(photos, nodes, progress=listener, on_error="stop")
    assert [(i.path, i.reason) for i in caught.value.images] == [
        ("train/ants/crash.jpg", "decoding it crashes the process (SIGSEGV)"),
    ]
    assert not told(listener, "is lost")


def test_renamed_images_are_not_computed_by_any_actor(photos, extract, nodes):
    """Their digests are looked up before a block is given away."""
    extract(photos, None)
    (photos / "train" / "ants").rename(photos / "train" / "wasps")
    (photos / "val" / "ants").rename(photos / "val" / "wasps")
    picture(90, (9, 9, 9)).save(photos / "train" / "wasps" / "new.png")
    cache = extract(photos, nodes)
    assert (cache.report.computed, cache.report.reused) == (1, 20)
    cache.check()


def test_a_slow_writer_holds_the_actors_back(tmp_path, extract, nodes, monkeypatch):
    """As many blocks as the actors hold, and a few more, are under way; never all."""
    more = make_photos(tmp_path / "more", {"train": 40, "val": 16})  # 14 blocks
    most = [0]
    monkeypatch.setattr(dispatch, "_WAITING", 2)
    write, give = CacheWriter.write, dispatch.Dispatch._give

    def slowly(*args):
        time.sleep(0.3)
        return write(*args)

    def counting(self, *args):
        give(self, *args)
        most[0] = max(most[0], len(self._given) + self._writing)

    monkeypatch.setattr(CacheWriter, "write", slowly)
    monkeypatch.setattr(dispatch.Dispatch, "_give", counting)
    cache = extract(more, nodes)
    cache.check()
    assert cache.report.computed == 112
    # Two actors hold two blocks each; two wait, and what was given before comes back.
    assert 4 <= most[0] <= 4 + 2 + 4


def test_a_busy_cluster_is_waited_for_aloud(photos, extract, nodes, monkeypatch):
    """It says what an actor asks for and what is free; then it goes on."""
    import ray

    class Sleeper:
        def rest(self):
            """Do nothing, on a CPU."""

    monkeypatch.setattr(roster, "_TELL", 1.0)
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        sleepers = [ray.remote(num_cpus=1)(Sleeper).remote() for _ in range(2)]
        ray.get([sleeper.rest.remote() for sleeper in sleepers])

        class Freeing(Details):
            def say(self, line):
                super().say(line)
                if "waiting for the cluster" in line:
                    ray.kill(sleepers[0])

        listener = Freeing()
        extract(photos, nodes, progress=listener).check()
        assert ray.is_initialized()  # it was ours before
    finally:
        ray.shutdown()
    assert told(listener, "an actor asks for 1 CPU; 0 CPUs are free")


def test_too_few_cpus_are_an_error_at_once(photos, extract, nodes):
    """Named, with what every node has and what to do."""
    with pytest.raises(DeviceError, match=r"asks for 3 CPUs: .* has 1 CPUs?.*; lower"):
        extract(photos, nodes, actor_cpus=3.0)


def test_a_silent_actor_is_lost(many, whole, extract, nodes, slow, monkeypatch):
    """A machine that hangs without dying does not hang the work."""
    monkeypatch.setattr(roster, "_PING", 1.0)
    monkeypatch.setattr(roster, "_SILENT", 4.0)
    listener = At(16)
    slow(0.1)
    with meanwhile(extract, many, nodes, progress=listener) as extraction:
        listener.wait()
        for pid in nodes.workers(1):
            os.kill(pid, signal.SIGSTOP)
        slow(0)
        cache = extraction.result(120)
    assert told(listener, "has not answered for 4 s")
    assert contents(cache) == whole


def test_other_versions_on_a_node_are_refused_by_name(photos, extract, strange):
    """Package, both versions, and the node."""
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.0.7\n"
    nodes = strange(metadata, "torch-2.0.7.dist-info/METADATA")
    with pytest.raises(DeviceError, match=r"has torch 2\.0\.7 where this machine"):
        extract(photos, nodes)


def test_a_node_without_featcache_is_refused(photos, extract, strange):
    """With what to install."""
    with pytest.raises(DeviceError, match="has no module 'featcache': install"):
        extract(photos, strange(BARE))


def test_a_node_that_does_not_see_the_images_is_refused(photos, extract, strange):
    """With the path, and how to let it see them."""
    with pytest.raises(DataError, match=r"cannot read .*00\.jpg \(No such file"):
        extract(photos, strange(BLIND))


def unasked() -> dict[str, str]:
    """Return an environment that says nothing of tokens, as a user's."""
    found = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    return {**found, "PYTHONPATH": str(ROOT)}


def test_clusters_one_after_another(photos, extract, tmp_path):
    """Also of one process, and with no token left in its environment."""
    code = f"""
import os, featcache
how = featcache.ExtractSpec(engine="ray", address="local")
for name in ("a.h5", "b.h5"):
    featcache.extract({str(photos)!r}, how, weights="random:0", cache=name)
print([name for name in os.environ if name.startswith("RAY_AUTH")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=unasked(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
    first, second = (featcache.open_cache(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert contents(first) == contents(second)


def test_a_cluster_of_one_command(photos, extract, tmp_path):
    """It ends with it, and nothing is left in the home folder."""
    home, cache = tmp_path / "home", tmp_path / "it.h5"
    home.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "featcache", "extract", photos, "--cache", cache),
            *("--weights", "random:0", "--engine", "ray", "--address", "local"),
        ],
        env={**unasked(), "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "20 images (train 12, val 8) of 2 classes",
        f"Ray {version('ray')}",
    ]
    assert not [*home.iterdir()]
    assert contents(featcache.open_cache(cache)) == contents(extract(photos, None))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", r"no Ray cluster \(Connection refused\); start one"),
        ("nonsense", "expected HOST:PORT, such as"),
        ("10.0.0.1:port", "expected HOST:PORT, such as"),
        ("ray://10.0.0.1:10001", "sends all features through a proxy"),
    ],
)
def test_a_wrong_address_is_an_error_at_once(tmp_path, address, words):
    """Before anything is read."""
    began = time.monotonic()
    with pytest.raises(DeviceError, match=words):
        featcache.extract(
            tmp_path / "nowhere", ExtractSpec(engine="ray", address=address)
        )
    assert time.monotonic() - began < 10


def test_a_wrong_address_in_the_environment_is_an_error_too(tmp_path, monkeypatch):
    """Which auto stands for; Ray itself would try for a quarter of an hour."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:1: there is no Ray cluster"):
        featcache.extract(tmp_path / "nowhere", ExtractSpec(engine="ray"))


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    """The extra by its name."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[ray\]'"):
        featcache.extract(tmp_path, ExtractSpec(engine="ray"))


@pytest.mark.parametrize("how", [{"address": "h:1"}, {"actors": 2}, {"actor_cpus": 1}])
def test_options_of_a_cluster_want_a_cluster(how):
    """None is taken and ignored."""
    with pytest.raises(SpecError, match="since the engine is not ray"):
        ExtractSpec(**how)
