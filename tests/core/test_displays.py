"""What objects tell of themselves: short, escaped, bounded, without colours."""

import itertools
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.displays import Displayed, as_html, as_text, percent, some, worded

HOSTILE = "<script>alert('x')</script>\"&\x1b[31m\u202e\udcff"
TAGS = {"table", "caption", "tbody", "tr", "th", "td"}


class Seen(HTMLParser):
    """Tags, attributes and text of a page, as a browser would have them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@dataclass(frozen=True)
class Told(Displayed):
    """A dataclass that says itself."""

    told: object

    def _told(self):
        return self.told


values = st.one_of(
    st.text(max_size=2000), st.binary(), st.integers(), st.floats(), st.booleans()
)


@given(told=st.lists(st.tuples(st.text(max_size=400), values), max_size=200))
def test_whatever_is_told_is_text_and_nothing_else(told):
    """No tag or attribute but the table's own; printable and short."""
    page, text = Told(told)._repr_html_(), repr(Told(told))
    seen = Seen(page)
    assert seen.tags <= TAGS
    assert {name for name, _ in seen.attributes} <= {"style", "scope"}
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(line.isprintable() for line in seen.texts)
    page.encode()
    assert len(page) < 80_000
    assert len(text.split("\n")) <= 27
    assert max(map(len, text.split("\n"))) <= 2 + 40 + 2 + 300


def test_hostile_names_are_shown_as_they_are():
    seen = Seen(as_html(HOSTILE, [(HOSTILE, HOSTILE)]))
    shown = "<script>alert('x')</script>\"&\\x1b[31m\\u202e\\xff"
    title, name, value = seen.texts
    assert title == HOSTILE  # a class's own name; nobody's file
    assert value == shown
    assert name.startswith("<script>")


def test_a_table_has_no_colour_of_its_own():
    """It is readable wherever the page's own text is, in dark notebooks, too."""
    page = as_html("A", [("b", 1)])
    assert re.findall(r"(?:color|background)\S*: *(\S+?)[;\"]", page) == ["inherit"]
    assert "#" not in page
    assert "rgb" not in page


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param([("n", 12345)], "<A: n 12,345>", id="one line"),
        pytest.param([("a", None), ("b", True)], "<A: b yes>", id="None is left out"),
        pytest.param([("a", 0.123456)], "<A: a 0.1235>", id="four digits"),
        pytest.param([("a", b"\xe9")], r"<A: a \xe9>", id="no UTF-8"),
        pytest.param(
            [("a", "x" * 50), ("long", "y" * 50)],
            f"A\n  a     {'x' * 50}\n  long  {'y' * 50}",
            id="several lines",
        ),
        pytest.param(
            [("a", "x" * 1000)], f"A\n  a  {'x' * 148}...{'x' * 148}", id="cut"
        ),
    ],
)
def test_text(told, expected):
    assert as_text("A", told) == expected


def test_more_rows_than_have_room_are_counted():
    lines = as_text("A", [(f"row {i}", i) for i in range(1015)]).split("\n")
    assert lines[-2].split() == ["row", "24", "24"]
    assert lines[-1].split() == ["...", "and", "990", "more"]


def test_a_list_names_the_first_and_takes_no_more():
    endless = map(str, itertools.count())
    assert some(endless, 1_000_000) == "1,000,000: 0, 1, 2, 3, 4 and 999,995 more"
    assert next(endless) == "5"
    assert some([], 0) == "0"
    assert some(["x" * 100] * 2, 2).count("...") == 2


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("val_accuracy", 0.5, "50.00 %", id="share"),
        pytest.param("val_loss", 0.5, 0.5, id="no share"),
        pytest.param("seconds", 0.126, "0.13 s", id="seconds"),
        pytest.param("bytes", 12_345, "12.3 kB", id="bytes"),
        pytest.param("seconds", None, None, id="no seconds"),
        pytest.param("counts", {"a": 1, "b": 2000}, "a 1, b 2,000", id="mapping"),
        pytest.param("names", ("a", "b"), "2: a, b", id="names"),
        pytest.param("names", (), None, id="no names"),
        pytest.param("note", "", None, id="nothing said"),
        pytest.param("skipped", 0, None, id="nothing skipped"),
        pytest.param("reused", 0, 0, id="nothing reused"),
    ],
)
def test_fields_are_read_as_their_names_say(name, value, expected):
    assert worded(name, value) == expected


def test_a_share_has_its_interval():
    assert percent(0.5, (0.25, 0.75)) == "50.00 % (95 % interval: 25.00 to 75.00 %)"
    assert percent(None, (0.25, 0.75)) is None
