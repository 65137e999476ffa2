"""What is written down is true: help texts, README, docstrings, decisions."""

import ast
import inspect
import pkgutil
import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

import featcache
from featcache.cli.main import main

ROOT = Path(__file__).parents[1]

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
DECISION = re.compile(r"^(?:#+ )?(\d+)\. ", re.MULTILINE)


def readme():
    return (ROOT / "README.md").read_text("utf-8")


def blocks(*languages):
    """Return the text of README's fenced blocks in these languages."""
    return [text for name, text in FENCE.findall(readme()) if name in languages]


def shell_lines():
    """Return the command lines of README's shell blocks, prompts cut off.

    In a block that shows a prompt, the lines without one are output.
    """
    lines = []
    for block in blocks("sh", "bash", "console", "shell"):
        joined = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in joined if line.startswith("$ ")]
        lines += prompted or [line for line in joined if line.strip()]
    return lines


def featcache_lines():
    """Return the arguments of every ``featcache ...`` in README's shell blocks."""
    found = []
    for line in shell_lines():
        if not re.match(r"([A-Z_]+=\S* +)*([\w./]*/)?featcache ", line.lstrip()):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]  # FEATCACHE_EXTRACT_DEVICE=cpu featcache ...
        ends = [i for i, word in enumerate(words) if set(word) <= set("|&;<>")]
        found.append(words[1 : min(ends, default=len(words))])
    return found


def options():
    for command in (main, *main.commands.values()):
        for param in command.params:
            if isinstance(param, click.Option):
                yield pytest.param(param, id=f"{command.name} {param.opts[-1]}")


@pytest.mark.parametrize("name", list(main.commands))
def test_every_command_has_help(name):
    assert main.commands[name].help


@pytest.mark.parametrize("name", list(main.commands))
def test_the_readme_names_every_command(name):
    assert f"featcache {name}" in readme()


@pytest.mark.parametrize("option", list(options()))
def test_every_option_has_help(option):
    assert option.help


def test_the_readme_shows_commands():
    assert len(featcache_lines()) >= 3


def test_every_command_of_the_readme_parses():
    for words in featcache_lines():
        parse(words)


def parse(words):
    """Parse arguments as the command line would; run nothing."""
    try:
        if words[:1] and words[0].startswith("-"):
            main.make_context("featcache", list(words))
            return
        context = click.Context(main, info_name="featcache")
        name, command, rest = main.resolve_command(context, list(words))
        command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        pass  # of --help and --version
    except click.ClickException as error:
        pytest.fail(f"README: featcache {shlex.join(words)}: {error.format_message()}")


def test_a_line_that_does_not_parse_is_noticed():
    with pytest.raises(pytest.fail.Exception, match="--nonsense"):
        parse(["extract", "--nonsense"])


def test_every_script_of_the_readme_is_there():
    named = set(re.findall(r"(?<![\w/.])scripts/[\w/.-]*\w", readme()))
    assert {"scripts/demo", "scripts/test"} <= named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_python_in_the_readme_uses_public_names_only():
    sources = blocks("python")
    assert sources
    used = {name for source in sources for name in names_used(ast.parse(source))}
    assert used
    assert used <= set(featcache.__all__)


def names_used(tree):
    """Yield X of every ``featcache.X`` and ``from featcache import X``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="featcache")):
                yield node.attr
            case ast.ImportFrom(module=str(module)) if module.startswith("featcache"):
                assert module == "featcache", f"README imports from {module}"
                yield from (alias.name for alias in node.names)


def test_keywords_in_the_readme_exist():
    for source in blocks("python"):
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="featcache"))):
                    known = inspect.signature(getattr(featcache, node.func.attr))
                    given = {word.arg for word in node.keywords if word.arg}
                    assert given <= set(known.parameters), ast.unparse(node)


def test_links_of_the_readme_lead_somewhere():
    targets = {a or b for a, b in LINK.findall(readme())}
    files = {t.split("#")[0] for t in targets if not re.match(r"\w+:|#", t)}
    assert {name for name in files if not (ROOT / name).exists()} == set()


def test_the_changelog_tells_of_this_version():
    headings = re.findall(
        r"^## .*", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings
    assert re.search(rf"Unreleased|{re.escape(featcache.__version__)}", headings[0])


def test_decisions_are_numbered_and_short():
    text = (ROOT / "docs/decisions.md").read_text("utf-8")
    numbers = [int(number) for number in DECISION.findall(text)]
    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))
    starts = [match.start() for match in DECISION.finditer(text)]
    for number, start, end in zip(numbers, starts, [*starts[1:], None], strict=True):
        assert len(text[start:end].strip().splitlines()) <= 12, f"decision {number}"


def modules():
    for found in pkgutil.walk_packages(featcache.__path__, "featcache."):
        if not found.name.startswith(("featcache.cli", "featcache.__main__")):
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_documented_parameters_exist(name):
    validate = pytest.importorskip("numpydoc.validate", reason="needs numpydoc")
    module = import_module(name)
    wrong = {
        member: description
        for member in own_members(module)
        for code, description in validate.validate(f"{name}.{member}")["errors"]
        if code == "PR02"
    }
    assert wrong == {}


def own_members(module):
    """Yield the public functions, classes and methods that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name
        if inspect.isclass(value):
            for method, what in vars(value).items():
                if not method.startswith("_") and inspect.isfunction(what):
                    yield f"{name}.{method}"
