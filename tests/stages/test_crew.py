"""Several processes at one cache: equal bytes, and what becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.clock import Clock
from featcache.core.errors import BadImagesError, DeviceError, WeightsError
from featcache.core.progress import SILENT
from featcache.core.specs import ExtractSpec, FeatureSpec
from featcache.core.status import Status
from featcache.stages import processes
from featcache.stages.devices import device_list
from featcache.store.header import read_header
from featcache.vision.isolation import suspicion
from tests.conftest import make_photos, picture
from tests.stages.test_extraction import Listener
from tests.stages.test_quarantine import hostile, spoilt  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
TWO = ExtractSpec(device="cpu,cpu", workers=2)
SKIP = ExtractSpec(device="cpu,cpu", workers=2, on_error="skip")
posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

# Loaded by every Python that is started with its folder on the path: reading an image
# takes long enough to be killed, and one named bug.jpg meets a bug.
SLOW = """
import time
from featcache.vision import decode as module

plain = module.read_file

def read_file(path):
    if path.name == "bug.jpg":
        raise ZeroDivisionError("a bug")
    time.sleep(0.2)
    return plain(path)

module.read_file = read_file
"""


class Details(Listener):
    """Remembers what those hear who asked for more."""

    def __init__(self) -> None:
        super().__init__()
        self.details: list[str] = []

    def detail(self, line):
        self.details.append(line)


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Put the slow decoder into every Python started from here on."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))


@pytest.fixture
def started(monkeypatch):
    """Every worker process that is started here."""
    found, start = [], processes._started

    def remembered(post):
        found.append(start(post))
        return found[-1]

    monkeypatch.setattr(processes, "_started", remembered)
    yield found
    assert all(process.poll() is not None for process in found), "left behind"


@pytest.fixture
def extract(tmp_path):
    """Extract with random weights into a cache of this name."""

    def run(data, spec=TWO, name="it.h5", progress=SILENT):
        cache = tmp_path / name
        return featcache.extract(
            data, spec, weights="random:0", cache=cache, progress=progress
        )

    return run


def contents(cache) -> dict[str, bytes]:
    cache.check()
    return {name: column.tobytes() for name, column in cache.columns.items()}


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(photos, extract, started):
    """Every column, the journal too; bad images are named; devices are told of."""
    (photos / "train/ants/00.jpg").write_bytes(b"no image")
    os.rename(  # noqa: PTH104 - bytes that are no text
        photos / "train/ants/01.jpg",
        os.fsencode(photos / "train/ants") + b"/caf\xe9 \n.jpg",
    )
    one = extract(photos, ExtractSpec(device="cpu", on_error="skip"), "one.h5")
    listener = Details()
    two = extract(photos, SKIP, "two.h5", listener)
    assert contents(one) == contents(two)
    assert one.header.columns == two.header.columns
    assert len(started) == 2
    report, alone = two.report, one.report
    assert (report.computed, report.skipped) == (19, 1)
    assert report.bad_images == alone.bad_images
    assert report.pieces["forward"] == alone.pieces["forward"]
    assert report.pieces.keys() == alone.pieces.keys()
    assert list(report.stages) == list(alone.stages)
    assert report.stages["forward"] > 0
    assert len(report.busy) == 2
    assert listener.advanced == 20
    assert {line.split(":")[0] for line in listener.details} >= {
        "cpu 1 forward",
        "cpu 2 work",
    }
    assert sorted(p.name for p in two.path.parent.glob("two.h5*")) == ["two.h5"]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cpu,cuda:0", "mixes the CPU with GPUs"),
        ("cuda:0,cuda", "names a GPU twice"),
        ("cuda:1,cuda:01", "names a GPU twice"),
        ("cuda:0,", "'nothing' in --device cuda:0,; expected"),
        ("auto,cuda:1", "'auto' in --device auto,cuda:1; expected"),
        ("cuda:0,mps", "'mps' in --device"),
        ("cuda:0,cuda:7", "torch sees 2 CUDA devices"),
    ],
)
def test_a_list_of_devices_has_to_make_sense(monkeypatch, device, message):
    """What cannot be is refused before any process is started, with what can be."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(DeviceError, match=message):
        device_list(device)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ("auto",)),
        ("cpu, cpu,cpu", ("cpu",) * 3),
        ("cuda:1,cuda", ("cuda:1", "cuda:0")),
        ("cuda:all", ("cuda:0", "cuda:1")),
    ],
)
def test_devices_of_a_list(monkeypatch, device, expected):
    """In the order given; one name is one process, this one."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_list(device) == expected


def test_all_gpus_of_a_machine_without_one(monkeypatch):
    """The message says what to do."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(DeviceError, match="pass --device cpu"):
        device_list("cuda:all")


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "1"), ("", "1"), ("5,GPU-ab12", "GPU-ab12")]
)
def test_a_worker_sees_its_own_gpu_alone(monkeypatch, visible, expected):
    """Whatever a library does on the first GPU, it does on the right one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("FEATCACHE_CHILD", "note")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    first, second = posts("cuda:0", "cuda:1", workers=5)
    assert second.environment()["CUDA_VISIBLE_DEVICES"] == expected
    assert "FEATCACHE_CHILD" not in second.environment()
    assert (first.job.threads, second.job.threads) == (2, 3)
    assert first.job.device == second.job.device == "cuda"
    assert not set(first.slots) & set(second.slots)


def posts(*devices, workers=1, sha="0" * 64, tensors=b""):
    """Assign work with random weights to devices."""
    from featcache.stages.posts import assign
    from featcache.stages.sources import find_weights
    from featcache.stages.tasks import Setting

    source = find_weights("resnet18", "random:0")
    setting = Setting(
        source=source, precision="float32", batch_size=0, workers=workers, expected=20
    )
    wanted = FeatureSpec(backbone="resnet18", weights_sha256=sha, view=source.view)
    return assign(devices, setting, wanted, tensors)


@pytest.mark.slow
def test_weights_that_have_changed_are_refused_by_the_worker(started):
    """Its own reading of the file has to give the tensors that the parent saw."""
    (post,) = posts("cpu")
    worker = processes.Worker(post, lambda _: None)
    with pytest.raises(WeightsError, match="cpu 1: resnet18 has changed since"):
        worker.ready.result(60)
    worker.close()


@pytest.mark.slow
def test_a_worker_takes_shipped_weights_and_no_file(started):
    """Another machine has not the file; the tensors are compared all the same."""
    from featcache.vision.backbones import random_weights
    from featcache.vision.weights import packed, state_sha256

    state = random_weights("resnet18", 3)
    for seed, sha, ready in ((3, state_sha256(state), True), (4, "0" * 64, False)):
        tensors = packed(random_weights("resnet18", seed))
        (post,) = posts("cpu", sha=sha, tensors=tensors)
        worker = processes.Worker(post, lambda _: None)
        if ready:
            assert worker.ready.result(60)["device"] == "cpu"
        else:
            with pytest.raises(WeightsError, match="has changed since"):
                worker.ready.result(60)
        worker.close()


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_an_error(photos, extract, monkeypatch):
    """Nothing is written before each of them can work."""
    monkeypatch.setattr(
        processes,
        "_started",
        lambda _: subprocess.Popen(
            [sys.executable, "-c", "import os; os.abort()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ),
    )
    with pytest.raises(DeviceError, match=r"cpu 1: its process .* before it could"):
        extract(photos)
    assert not list(photos.parent.glob("it.h5*"))


@posix
@pytest.mark.slow
@pytest.mark.parametrize("dead", [1, 2])
def test_a_killed_worker_costs_its_blocks_in_flight(
    photos, extract, started, slow, dead
):
    """Another takes them over; without another one, the next run does."""
    whole = extract(photos, ExtractSpec(device="cpu"), "whole.h5")

    class Killer(Listener):
        def advance(self, count):
            super().advance(count)
            for process in started[:dead]:
                process.kill()

    listener = Killer()
    if dead == 2:
        with pytest.raises(DeviceError, match=r"SIGKILL; no other is left\. What is"):
            extract(photos, progress=listener)
        cache = extract(photos)
        assert 0 < cache.report.computed < 20
    else:
        cache = extract(photos, progress=listener)
        assert cache.report.computed == 20
    assert any(
        line == "warning: cpu 1: its process was ended by SIGKILL; the others go on "
        "without it"
        for line in listener.lines
    ) or (dead == 2)
    assert contents(cache) == contents(whole)
    assert sorted(p.name for p in cache.path.parent.glob("it.h5*")) == ["it.h5"]


@posix
@pytest.mark.slow
def test_a_crash_and_a_hang_cost_two_images_and_no_restart(
    hostile,  # noqa: F811
    spoilt,  # noqa: F811
    extract,
    started,
    monkeypatch,
):
    """Processes are started anew, the images tried apart, left out and named."""
    monkeypatch.setattr("featcache.stages.filling.SECONDS", 2)
    quick = partial(suspicion, seconds=4)
    monkeypatch.setattr("featcache.stages.suspects.suspicion", quick)
    listener = Listener()
    with pytest.raises(BadImagesError) as caught:
        extract(spoilt, progress=listener)
    assert [(i.path, i.reason) for i in caught.value.images] == [
        ("train/ants/crash.jpg", "decoding it crashes the process (SIGSEGV)"),
        ("val/bees/hang.jpg", "decoding it does not end within 4 s"),
    ]
    # On a busy machine, an image more may take the two seconds of a hang.
    assert sum("an image took the process down" in x for x in listener.lines) >= 2
    assert len(started) == 4
    cache = extract(spoilt, SKIP)
    assert (cache.report.computed, cache.report.skipped) == (0, 2)
    assert (cache.status == Status.QUARANTINED).sum() == 2
    assert sorted(p.name for p in cache.path.parent.glob("it.h5*")) == ["it.h5"]


@pytest.mark.slow
def test_renamed_images_are_not_computed_by_any_process(photos, extract, started):
    """Their digests are looked up before a block is given away."""
    extract(photos)
    (photos / "train" / "ants").rename(photos / "train" / "wasps")
    (photos / "val" / "ants").rename(photos / "val" / "wasps")
    picture(90, (9, 9, 9)).save(photos / "train" / "wasps" / "new.png")
    cache = extract(photos)
    assert (cache.report.computed, cache.report.reused) == (1, 20)
    fresh = extract(photos, ExtractSpec(device="cpu"), "fresh.h5")
    for name in ("paths", "digests", "status"):
        assert np.array_equal(cache.columns[name], fresh.columns[name])
    assert np.allclose(cache.features().X, fresh.features().X, atol=1e-4)


@pytest.mark.slow
def test_a_bug_in_a_worker_reaches_the_user_once(photos, extract, slow, started):
    """With its traceback and its device; the others stop."""
    (photos / "train/ants/00.jpg").rename(photos / "train/ants/bug.jpg")
    with pytest.raises(RuntimeError, match=r"(?s)cpu \d failed.*in read_file.*a bug"):
        extract(photos)


def command(photos, cache, *words):
    """Start the command; a process group of its own, as a shell gives it."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "featcache", "extract", photos, "--cache", cache),
            *("--weights", "random:0", "--device", "cpu,cpu", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[int]:
    """Return the processes below one, on Linux."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [*children, *(p for child in children for p in descendants(child))]


def blocks_done(partial_file: Path) -> int:
    """Return how many blocks an unfinished cache has."""
    if not partial_file.exists():
        return 0
    journal = read_header(partial_file).columns["journal"]
    data = partial_file.read_bytes()[journal.offset : journal.offset + journal.nbytes]
    return sum(any(data[at : at + 32]) for at in range(0, len(data), 32))


def until(true, seconds=200.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_the_command_ends_its_workers(
    slow, tmp_path, monkeypatch, number
):
    """And the next run goes on from what was done, to the bytes of one process."""
    photos = make_photos(tmp_path / "photos", {"train": 12, "val": 8})
    cache = tmp_path / "c.h5"
    with command(photos, cache) as process:
        until(lambda: blocks_done(tmp_path / "c.h5.partial") > 0)
        below = descendants(process.pid)
        assert len(below) == 3, "the child that works, and two workers"
        if number == signal.SIGKILL:
            os.kill(below[0], number)
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in below), 10)
    assert out == ""
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.count("stopped; what is done is kept in") == 1
    monkeypatch.delenv("PYTHONPATH")
    again = command(photos, cache, "--json")
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert 0 < json.loads(out)["computed"] < 40
    whole = featcache.extract(
        photos, ExtractSpec(device="cpu"), weights="random:0", cache=tmp_path / "w.h5"
    )
    assert contents(featcache.open_cache(cache)) == contents(whole)


@pytest.mark.slow
def test_a_worker_ends_when_its_stdin_does():
    """Also while it is starting, and where the system kills no orphans."""
    done = subprocess.run(
        [sys.executable, "-m", "featcache.stages.worker"],
        cwd=ROOT,
        input=posts("cpu", sha="1" * 64)[0].job.line(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_clocks_are_added_up():
    """What one took from the other is counted once."""
    ours, others = Clock("read"), Clock("read")
    with others.worker(), others.stage("read"):
        time.sleep(0.01)
    stages, busy = others.take()
    assert others.take() == ({}, {})
    ours.add(stages, {"cuda:1 thread": 0.5})
    ours.add({"forward": 2.0}, {"cuda:1 thread": 0.5})
    assert ours.seconds()["read"] >= 0.01
    assert list(ours.seconds()) == ["read", "forward"]
    assert len(busy) == 1
    assert ours.busy() == {"cuda:1 thread": 1.0}


@pytest.mark.slow
def test_several_views_are_what_one_process_makes(photos, tmp_path):
    """Byte for byte; also after images have moved between splits."""
    how = {"weights": "random:0", "views": 3}
    for step in ("made", "synced"):
        paths = [tmp_path / name for name in ("one.h5", "two.h5")]
        for path, device in zip(paths, ("cpu", "cpu,cpu"), strict=True):
            spec = ExtractSpec(device=device, workers=2)
            featcache.extract(photos, spec, cache=path, **how).close()
        with (
            featcache.open_cache(paths[0]) as one,
            featcache.open_cache(paths[1]) as two,
        ):
            for name in ("features", "digests", "status"):
                assert one.columns[name].tobytes() == two.columns[name].tobytes(), step
        if step == "made":
            (photos / "val/bees/01.jpg").rename(photos / "train/bees/in.jpg")
