"""docs/cluster.md: its commands do what it says, in the environments that it names."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.places import place_of
from tests.conftest import make_photos
from tests.stages.test_extraction import sampled_pixels

TEXT = (Path(__file__).parents[1] / "docs/cluster.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
COUNT = 16


def commands():
    """Return the arguments of every featcache command in a block of the recipes."""
    found = []
    for kind, block in BLOCKS:
        if kind == "bash":
            lines = [line for line in block.splitlines() if not line.startswith("#")]
            words = [shlex.split(line) for line in lines if line]
        else:
            listed = re.search(r"command: \[(.*)\]", block)[1]
            words = [[word.strip(' "') for word in listed.split(",")]]
        found += [line[line.index("featcache") + 1 :] for line in words]
    return found


def environments(index):
    """Return what each starter says to the process of an index, from 0."""
    array = {"ID": index + 1, "MIN": 1, "MAX": COUNT, "COUNT": COUNT}
    return {
        "torchrun": {"RANK": index, "WORLD_SIZE": COUNT},
        "SLURM": {f"SLURM_ARRAY_TASK_{k}": v for k, v in array.items()},
        "Kubernetes": {"JOB_COMPLETION_INDEX": index},
    }


def test_every_recipe_has_a_command():
    """Three of extract and its repetition, two of fit-head."""
    names = [words[0] for words in commands()]
    assert sorted(names) == ["extract"] * 4 + ["fit-head"] * 2


def test_each_process_gets_its_own_part():
    """With the option as it stands in the recipe for it."""
    shards = [w[w.index("--shard") + 1] for w in commands() if "--shard" in w]
    slurm, again, kubernetes, torchrun = shards
    for index in range(COUNT):
        told = {
            starter: {name: str(value) for name, value in said.items()}
            for starter, said in environments(index).items()
        }
        again_now = again.replace("$SLURM_ARRAY_TASK_ID", str(index + 1))
        for text, starter in (
            (slurm, "SLURM"),
            (again_now, "SLURM"),
            (kubernetes, "Kubernetes"),
            (torchrun, "torchrun"),
        ):
            assert place_of(text, told[starter]).shard.index == index + 1, starter
    assert f"completions: {kubernetes.removeprefix('auto/')}\n" in TEXT
    assert f"--array=1-{COUNT}\n" in TEXT


@pytest.mark.slow
@pytest.mark.parametrize("starter", environments(0))
def test_the_recipes_make_a_head(starter, monkeypatch, tmp_path):
    """All parts by the recipe's command, and fit-head of what they made."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", {"train": 100, "val": 50})
    order = {"SLURM": 0, "Kubernetes": 2, "torchrun": 3}
    extract = [w for w in commands() if w[0] == "extract"][order[starter]]
    places = {"/data/photos": "photos", "/cache/photos.h5": "cache/photos.h5"}
    words = [places.get(word, word) for word in extract]
    words += ["--weights", "random:0", "--backbone", "resnet18"]
    for index in range(COUNT):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environments(index)[starter].items():
                patch.setenv(name, str(value))
            ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, ran.output
    fit = next(w for w in commands() if w[0] == "fit-head")
    ran = CliRunner().invoke(main, [*fit, "--epochs", "2"])
    assert ran.exit_code == 0, ran.output
    with featcache.open_cache("cache/photos-part-*.h5") as cache:
        assert (len(cache), len(cache.parts)) == (300, COUNT)
