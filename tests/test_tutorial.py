"""docs/tutorial.md is typed from top to bottom, and says what the commands say."""

import os
import re
import shlex

import pytest
import torch
from click.testing import CliRunner

from featcache.cli.main import main
from featcache.vision.backbones import random_weights
from tests.conftest import COLOURS, make_photos, picture
from tests.test_docs import FENCE, LINK, ROOT
from tests.test_examples import NUMBER

# How fast a machine is, what limits it, and whether a file has kB or MB, differs.
OWN = re.compile(r"^[\d.]+ s to start; .*\n|\b[kM](?=B\b)", re.MULTILINE)


def document():
    return (ROOT / "docs/tutorial.md").read_text("utf-8")


def commands():
    """Return the words of every command typed, and what stands under it."""
    blocks = [text for kind, text in FENCE.findall(document()) if kind == "console"]
    typed = [part for block in blocks for part in block.split("$ ")[1:]]
    return [part.split("\n", 1) for part in typed]


def says(expected, found):
    """Tell whether texts are equal, whatever the numbers; ``...`` is anything."""
    expected, found = (" ".join(OWN.sub("", t).split()) for t in (expected, found))
    pattern = ".*".join(
        NUMBER.pattern.join(re.escape(text) for text in NUMBER.split(part)[::2])
        for part in expected.split("...")
    )
    return re.fullmatch(pattern, found) is not None


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        pytest.param("val 95.42 %\n", "val   7 %", True, id="numbers, spaces"),
        pytest.param("a 1\n3.8 s to start; x\n", "a 2\n", True, id="speed"),
        pytest.param("a 1 ...", "a 5 b", True, id="anything"),
        pytest.param("val 95.42 %", "test 95.42 %", False, id="another word"),
        pytest.param("one", "one more", False, id="nothing left over"),
    ],
)
def test_what_says_the_same(expected, found, same):
    assert says(expected, found) == same


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the tutorial asks for, much smaller."""
    monkeypatch.chdir(tmp_path)
    folder = make_photos(tmp_path / "data/hymenoptera_data", {"train": 6, "val": 4})
    picture(0, (9, 9, 9)).save(folder / "train/ants/imageNotFound.gif")
    for number in (0, 1):  # to be mistaken
        picture(7 + number, COLOURS["bees"]).save(folder / f"val/ants/0{number}.jpg")
    state = dict(random_weights("resnet18", 0))
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, "resnet18.pth")
    monkeypatch.setenv("FEATCACHE_FINETUNE_EPOCHS", "2")
    return tmp_path


@pytest.mark.slow
def test_every_command_says_what_the_tutorial_says(place):
    """One after the other, in one folder; the words are compared, not the numbers."""
    for line, expected in commands():
        program, *words = shlex.split(line)
        assert program == "featcache"
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
        output = result.output.replace(f"{place}{os.sep}", "")
        assert says(expected, output), f"{line}\ngave\n{output}"
    for name in re.findall(r"[\w./-]+\.(?:png|html|csv)", document()):
        if not (ROOT / "docs" / name).exists():  # those are of digits
            assert (place / name).stat().st_size, name


def test_the_tutorial_goes_through_the_verbs():
    verbs = {line.split()[1] for line, _ in commands()}
    looking = {"show", "history", "map", "audit", "report", "evaluate", "predict"}
    assert verbs >= looking | {"extract", "fit-head", "curve", "finetune", "compare"}


def test_links_and_pictures_of_the_tutorial_are_there():
    links = [a or b for a, b in LINK.findall(document())]
    assert len([link for link in links if link.endswith(".png")]) >= 6
    missing = [link for link in links if not (ROOT / "docs" / link).exists()]
    assert missing == []
