"""What holds of the whole repository: layers, sizes, a light start, clean files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import featcache

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "featcache").rglob("*.py"))

# Written so that this file does not hold what it forbids.
REGISTRIES = re.compile(
    rb"(pypi|pythonhosted|anaconda|npmjs)[.](org|com)|pytorch[.]org/whl"
)
MACHINE_PATHS = re.compile(rb"(?<![\w.}~/-])/(work|root|opt|Users/\w+|home/\w+)/")

HEAVY = ("torch", "torchvision", "sklearn", "h5py", "matplotlib", "numpy", "PIL")
REPORT = f"""
print()
print("heavy:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
COMMAND = f"""
import sys
from featcache.cli.main import main
try:
    main(prog_name="featcache")
except SystemExit as end:
    assert not end.code, end.code
{REPORT}"""


def git(*arguments):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    return subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, check=False
    )


def python(code, *arguments, **environment):
    """Run code in a new process; return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_imports_go_one_way():
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    printed = python(
        "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"
    )
    assert " 0 broken" in printed


def test_no_file_is_longer_than_350_lines():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in MODULES
    }
    assert {name: n for name, n in lengths.items() if n > 350} == {}


def test_import_loads_nothing_heavy():
    printed = python(f"import sys, featcache{REPORT}")
    assert printed.split("heavy:")[1].split() == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["extract", "--help"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments):
    printed = python(COMMAND, *arguments)
    assert "featcache" in printed
    assert printed.split("heavy:")[1].split() == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [("featcache ext", "extract"), ("featcache extract --backbone wide", "wide_")],
)
def test_completion_loads_nothing_heavy(words, expected):
    printed = python(
        COMMAND,
        _FEATCACHE_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert expected in printed
    assert printed.split("heavy:")[1].split() == []


@pytest.mark.parametrize("name", featcache.__all__)
def test_every_public_name_resolves(name):
    assert getattr(featcache, name) is not None
    assert name in dir(featcache)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        _ = featcache.extrakt


@pytest.mark.parametrize("forbidden", [REGISTRIES, MACHINE_PATHS], ids=["host", "path"])
def test_no_file_names_a_registry_or_a_machine(forbidden):
    names = os.fsdecode(git("ls-files", "-z").stdout).split("\0")
    files = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    found = {
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in files
        for match in forbidden.finditer(path.read_bytes())
    }
    assert found == set()


@pytest.mark.parametrize("folder", ["data", "cache"])
def test_what_is_downloaded_or_made_stays_out_of_git(folder):
    def ignored(name):
        return git("check-ignore", "--no-index", "--quiet", name).returncode == 0

    assert ignored(f"{folder}/anything.h5")
    assert ignored(f"{folder}/digits/train/0/0000.png")
    assert not ignored(f"{folder}/README.md")
    assert not ignored(f"featcache/{folder}/anything.py")
    assert (ROOT / folder / "README.md").is_file()


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "featcache/py.typed").is_file()
