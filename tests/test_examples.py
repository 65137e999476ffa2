"""docs/examples.md is a notebook whose cells give what stands under them."""

import ast
import contextlib
import inspect
import io
import math
import re

import pytest

import featcache
from tests.conftest import make_photos
from tests.test_docs import FENCE, ROOT, names_used

LONGEST = 12  # lines of an example

NUMBER = re.compile(r"(\d+(?:,\d{3})*(?:\.\d*)?)")
TIME = re.compile(r"[\d.]+ s$", re.MULTILINE)


def document():
    return (ROOT / "docs/examples.md").read_text("utf-8")


def cells(text):
    """Return code and expected text of every cell."""
    blocks = FENCE.findall(text)
    kinds, texts = [kind for kind, _ in blocks], [text for _, text in blocks]
    assert kinds
    assert kinds == ["python", "text"] * (len(blocks) // 2)
    return list(zip(texts[::2], texts[1::2], strict=True))


def run(code, names):
    """Run a cell as a notebook does; return what it prints and shows."""
    *before, last = ast.parse(code).body
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(ast.unparse(last), names)
            print("" if value is None else repr(value))  # noqa: T201
        else:
            exec(ast.unparse(last), names)
    return printed.getvalue()


def agree(expected, found):
    """Tell whether texts are equal, but for times and the widths of columns.

    Numbers with a point may differ by 5 per cent or 0.02, and ``...`` is anything.
    """
    expected, found = (
        " ".join(TIME.sub("TIME", text).split()) for text in (expected, found)
    )
    parts = [NUMBER.split(part) for part in expected.split("...")]
    pattern = ".*".join(
        "".join(NUMBER.pattern if i % 2 else re.escape(p) for i, p in enumerate(part))
        for part in parts
    )
    match = re.fullmatch(pattern, found)
    wanted = [number for part in parts for number in part[1::2]]
    return match is not None and all(map(alike, wanted, match.groups()))


def alike(wanted, got):
    if "." not in wanted:
        return wanted == got
    a, b = (float(number.replace(",", "")) for number in (wanted, got))
    return math.isclose(a, b, rel_tol=0.05, abs_tol=0.02)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        pytest.param("loss 0.50\nx", "loss   0.51\nx\n", True, id="tolerance, spaces"),
        pytest.param("loss 0.50", "loss 0.60", False, id="too far"),
        pytest.param("1,797 images", "1,798 images", False, id="a count"),
        pytest.param("a 3\nseconds 0.1 s", "a 3\nseconds 72.39 s", True, id="a time"),
        pytest.param(
            "a 3\nseconds 0.1 s", "a 4\nseconds 0.1 s", False, id="not a time"
        ),
        pytest.param("[1. 1.]", "[1. 1.]", True, id="numpy"),
        pytest.param("cut: ... ant", "cut: 5 bees, 1 ant", True, id="anything"),
        pytest.param("cut: ... ant", "cut: 5 bees", False, id="and then an end"),
        pytest.param("one", "one more", False, id="nothing left over"),
    ],
)
def test_what_agrees(expected, found, same):
    assert agree(expected, found) == same


def check(text, folder):
    """Run the cells of a document in a folder with photos."""
    make_photos(folder / "photos", {"train": 4, "val": 2})
    names: dict = {}
    with contextlib.chdir(folder):
        for code, expected in cells(text):
            found = run(code, names)
            assert agree(expected, found), f"{code}\ngave\n{found}\nnot\n{expected}"


def test_the_first_examples_give_what_they_say(tmp_path):
    """As far as the reports; pictures, and networks that run again, take seconds."""
    text, rest = document().split("\n## curve")
    assert len(cells(rest)) > 3
    check(text, tmp_path)


@pytest.mark.slow
def test_all_examples_give_what_they_say(tmp_path):
    pytest.importorskip("pandas", reason="an example makes a frame")
    check(document(), tmp_path)


def test_examples_are_short():
    lengths = {code: len(code.splitlines()) for code, _ in cells(document())}
    assert {code: n for code, n in lengths.items() if n > LONGEST} == {}


def test_every_verb_has_an_example():
    trees = [ast.parse(code) for code, _ in cells(document())]
    used = {name for tree in trees for name in names_used(tree)}
    verbs = "extract fit_head finetune predict evaluate compare curve audit export"
    others = "export_model iter_predictions estimators open_cache open_model"
    assert used >= {*verbs.split(), *others.split()}
    assert used <= set(featcache.__all__)


def test_keywords_of_the_examples_exist():
    """Also those of the cells that only the slow tests run."""
    for node in (n for code, _ in cells(document()) for n in ast.walk(ast.parse(code))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="featcache"))):
                known = inspect.signature(getattr(featcache, node.func.attr))
                given = {word.arg for word in node.keywords}
                assert given <= set(known.parameters), ast.unparse(node)
