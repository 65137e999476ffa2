"""Several processes that train together do what one does with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.core.errors import DeviceError, TrainingError
from featcache.train.ranks import Ranks
from tests.train import several_ranks

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/train/several_ranks.py"
COUNT = 2


def place(rank):
    """Return what torchrun says to a process; all are on this machine."""
    words = {"RANK": rank, "WORLD_SIZE": COUNT, "LOCAL_RANK": rank}
    words |= {"LOCAL_WORLD_SIZE": COUNT, "MASTER_ADDR": "127.0.0.1"}
    words |= {"OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
    return {word: str(value) for word, value in words.items()}


def start(action, file):
    """Start the processes as torchrun does, without waiting for torchrun itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, PROGRAM, action, file],
            env={**os.environ, **place(rank), "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(COUNT)
    ]


def ended(processes):
    """Wait for processes; return their exit codes and what they said."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of the processes found; they are started once for all tests."""
    file = tmp_path_factory.mktemp("ranks") / "found"
    codes, said = ended(start("everything", file))
    assert codes == [0] * COUNT, said
    assert said == [""] * COUNT  # no warning
    arrays = [np.load(file.with_suffix(f".{rank}.npz")) for rank in range(COUNT)]
    found = [
        json.loads(file.with_suffix(f".{rank}.json").read_text())
        for rank in range(COUNT)
    ]
    return arrays, found


@cache
def trained_alone(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return several_ranks.trained(name, Ranks.alone())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", several_ranks.MODELS)
def test_training_is_that_of_one_process(together, name):
    arrays, _ = together
    tolerance = 1e-10 if name == "resnet" else 1e-6  # float64, float32
    for key, expected in trained_alone(name).items():
        for found in arrays:
            np.testing.assert_allclose(
                found[f"{name}/{key}"], expected, rtol=0, atol=tolerance, err_msg=key
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", several_ranks.MODELS)
def test_all_processes_hold_the_same_bits(together, name):
    (first, second), _ = together
    for key in trained_alone(name):
        np.testing.assert_array_equal(first[f"{name}/{key}"], second[f"{name}/{key}"])


def test_the_statistics_move_as_in_one_process():
    """The comparison above would mean nothing if they stood still."""
    after = trained_alone("drift")
    assert after["0.1.num_batches_tracked"] == len(several_ranks.SIZES)
    assert np.abs(after["0.1.running_var"] - 1).min() > 0.1
    assert trained_alone("head_only")["0.1.num_batches_tracked"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("rank", range(COUNT))
def test_synced_norm_is_torchs_over_the_whole_batch(together, rank):
    errors = together[1][rank]["norm_errors"]
    assert len(errors) == 7
    # Of values 30 standard deviations from 0, float32 leaves 5 digits of a deviation.
    assert max(errors.values()) < 3e-5
    assert max(errors["mean"], errors["variance"]) < 3e-6
    assert errors["batches"] == 0


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_synced_norm_is_torchs_on_every_device(device):
    ran = subprocess.run(
        [sys.executable, PROGRAM, "alone", device],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 1e-4


@pytest.mark.slow
def test_an_empty_share_works_in_bfloat16(together):
    assert [found["bfloat16_is_finite"] for found in together[1]] == [True] * COUNT


@pytest.mark.slow
def test_each_knows_its_place(together):
    assert [found["place"] for found in together[1]] == [[0, 2, "cpu"], [1, 2, "cpu"]]


@pytest.mark.slow
def test_all_hear_the_same(together):
    first, second = (found["spoken"] for found in together[1])
    assert (first.pop("main"), second.pop("main")) == (True, False)
    assert first == second
    assert first["sum"] == [0.1 + 0.2, 2e300, 2**41]
    evens, odds = [0, 2, 4, 6, 8], [1, 3, 5]
    assert first["gathered"] == [[[n, n * n] for n in part] for part in (evens, odds)]
    assert first["none"] == [["float32", 0, 3]] * COUNT
    assert first["told"] == {"folder": "runs/caf\udce9", "n": None, "by": 0}


@pytest.mark.slow
def test_an_error_of_one_is_raised_in_all(together):
    first, second = (found["failed_together"] for found in together[1])
    words = ["process 1 found one", "process 0 found one", ""]
    assert [text for _, text in first] == [text for _, text in second] == words
    assert [kind for kind, _ in first] == ["PeerError", "BadImagesError", "nothing"]
    assert [kind for kind, _ in second] == ["BadImagesError", "PeerError", "nothing"]


@pytest.mark.slow
def test_the_main_process_goes_first(together):
    assert [found["main_was_first"] for found in together[1]] == [True] * COUNT


@pytest.mark.slow
def test_a_failure_ends_the_others_at_once(tmp_path):
    codes, (first, second) = ended(start("one_fails", tmp_path / "found"))
    assert codes == [1, 1]
    assert second == "BadImagesError: a.jpg is truncated\n"
    assert first.startswith("PeerError: process 0 of 2 has lost the others")
    assert first.count("\n") == 1


@pytest.mark.slow
def test_a_death_ends_the_others_at_once(tmp_path):
    codes, (first, _) = ended(start("one_dies", tmp_path / "found"))
    assert codes == [1, -9]
    assert first.startswith("PeerError: process 0 of 2 has lost the others")


@pytest.mark.slow
def test_torchrun_sees_a_good_end_every_time(tmp_path):
    for _ in range(8):
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--standalone", "--nproc-per-node", str(COUNT)),
                *(PROGRAM, "nothing", tmp_path / "found"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


def test_one_process_is_a_rank_of_one():
    ranks, model = Ranks.alone(), torch.nn.BatchNorm2d(3)
    assert ranks.main
    assert ranks.wrap(model) is model
    assert ranks.sum([1, 2.5]) == [1.0, 2.5]
    array = np.arange(3)
    assert ranks.gather(array)[0] is array
    assert ranks.told({"a": 1}) == {"a": 1}
    with ranks.main_first(), ranks.agreeing(), ranks.no_sync(model):
        ranks.barrier()
    with pytest.raises(TrainingError, match="as it was"), ranks.agreeing():
        raise TrainingError("as it was")


@pytest.fixture
def environment(monkeypatch):
    """Set what torchrun says to a process."""

    def say(**words):
        for word in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(word, raising=False)
        for word, value in words.items():
            monkeypatch.setenv(word, value)

    return say


@pytest.mark.parametrize("words", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_without_others_nobody_is_met(environment, words):
    environment(**words)
    with Ranks.joined("cuda:7") as ranks:  # no device of ours to judge
        assert ranks == Ranks.alone()
        assert ranks.device is None
        assert not torch.distributed.is_initialized()


FIRST = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"LOCAL_RANK": ""}, id="a part is missing"),
        pytest.param({"RANK": "2"}, id="a rank too high"),
        pytest.param({"WORLD_SIZE": "two"}, id="no number"),
        pytest.param({"LOCAL_WORLD_SIZE": "3"}, id="more here than there are"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(environment, wrong):
    environment(**{**FIRST, **wrong})
    with (
        pytest.raises(TrainingError, match="start them with 'torchrun"),
        Ranks.joined("cpu"),
    ):
        pass


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "2 processes on this machine, but torch sees 1"),
        ("mps", "expected cuda"),
    ],
)
def test_a_device_for_too_few_is_refused(environment, monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    environment(**FIRST)
    with pytest.raises(DeviceError, match=words), Ranks.joined(device):
        pass


def test_processes_that_cannot_meet_say_so(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        environment(**FIRST, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with (
            pytest.raises(TrainingError, match="another --master-port"),
            Ranks.joined("cpu"),
        ):
            pass
