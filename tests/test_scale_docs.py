"""docs/scale.md: its commands work, and its arithmetic is right."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.blocks import block_rows
from tests.conftest import make_photos
from tests.stages.test_extraction import sampled_pixels
from tests.stages.test_sharded_sources import by_path, write_tars
from tests.test_docs import LINK, ROOT

TEXT = (ROOT / "docs/scale.md").read_text("utf-8")
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
NUMBER = r"([\d,.]+)(?: ([KMGT]B))?"


def value(text):
    """Return the number that a cell of a table states."""
    number, unit = re.search(NUMBER, text).groups()
    return float(number.replace(",", "")) * UNITS.get(unit, 1)


def row(start):
    """Return the cells of the line of a table that begins so."""
    (line,) = re.findall(rf"^\| \*?{re.escape(start)}.*$", TEXT, re.MULTILINE)
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    "name",
    [
        "images read",
        "features, 512 float16",
        "features, 2,048 float16 ",
        "features, 2,048 float32",
        "beside the features",
        "what is remembered",
    ],
)
def test_bytes_an_image_make_the_bytes_of_all(name):
    _, each, *all_ = row(name)
    for images, cell in zip((1e8, 1e9), all_, strict=True):
        assert value(cell) == pytest.approx(images * value(each), rel=0.03), name


def test_the_journal_is_a_sha256_for_each_block():
    for images, cell in zip((10**8, 10**9), row("journal | 1/8")[2:], strict=True):
        assert value(cell) == 32 * images / block_rows(images, 4096)


@pytest.mark.parametrize("name", ["CPU, ResNet-18", "CPU, ResNet-50"])
def test_core_hours_follow_from_the_speed(name):
    _, speed, *hours = row(name)
    for images, cell in zip((1e8, 1e9), hours, strict=True):
        assert value(cell) == pytest.approx(images / value(speed) / 3600, rel=0.01)


def test_the_example_follows_from_what_it_assumes():
    speed = value(row("assuming 2,000")[0])
    for column, images in ((1, 1e8), (2, 1e9)):
        expected = {
            "GPU hours": images / speed / 3600,
            "hours on 16": images / speed / 3600 / 16,
            "read by 16": 16 * speed * 1e5,
            "features of 2,048 float16 that": 16 * speed * 4096,
            "cores that decode": 16 * speed / 508,
        }
        for name, number in expected.items():
            assert value(row(name)[column]) == pytest.approx(number, rel=0.02), name


def test_links_and_scripts_are_there():
    targets = [a or b for a, b in LINK.findall(TEXT)]
    assert targets
    for target in targets:
        name, _, heading = target.partition("#")
        text = (ROOT / "docs" / name).read_text("utf-8").lower()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert not heading or heading in {h.replace(" ", "-") for h in headings}
    scripts = re.findall(r"^python (\S+)", TEXT, re.MULTILINE)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


def test_runs_with_shards_of_their_own_open_as_one(monkeypatch, tmp_path):
    """By the three commands, it is what one run over all of them makes."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)
    write_tars(make_photos(Path("photos"), {"train": 6, "val": 4}), 4)
    lines = re.findall(r"^ +featcache (.*)$", TEXT, re.MULTILINE)
    patterns = iter(["tars/*-{00..01}.tar", "tars/*-{02..03}.tar"])
    assert len(lines) == 3
    for line in lines:
        words = [word.strip("'") for word in line.split()]
        if words[0] == "extract":
            words[1] = next(patterns)
            words += ["--weights", "random:0"]
        else:
            words += ["--epochs", "1"]
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, ran.output
    with (
        featcache.extract("tars", weights="random:0", cache="whole.h5") as whole,
        featcache.open_cache("cache/photos-*.h5") as parts,
    ):
        assert len(parts.parts) == 2
        assert by_path(parts) == by_path(whole)
