"""The page of a report: whole, escaped, and the same for the same data."""

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from featcache.core.pages import Cell, MapPart
from featcache.viz.page import TABLE, render
from tests.viz.made_pages import HOSTILE, make_page

VOID = {"meta", "img", "br", "hr", "input", "link"}
TAGS = """
html head meta title style body a header main footer nav section article figure
figcaption h1 h2 h3 h4 p ul li dl dt dd div span strong b bdi table thead tbody tr th
td caption button select option label details summary script svg g path text rect circle
"""
"""Everything that the templates write."""


class Parsed(HTMLParser):
    """What a browser would see: elements, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def values(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


@pytest.fixture(scope="module", params=["one", "several", "many classes"])
def parsed(request):
    """The page of hostile names, as one run, as three, and with a drawn matrix."""
    classes = HOSTILE
    if request.param == "many classes":
        classes = [*HOSTILE, *(f"class {i}" for i in range(TABLE))]
    runs = 3 if request.param == "several" else 1
    text = render(make_page(classes, runs=runs, images=80))
    return Parsed(text), text, classes


def test_names_make_no_element_and_no_attribute(parsed):
    page, text, _ = parsed
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= set(TAGS.split())
    names = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert all(re.fullmatch(r"#[\w-]+", value) for value in page.values("href"))
    assert not {"src", "srcset", "action", "data"} & names
    assert "49" not in page.texts["bdi"]
    assert text.count("<script") == 2
    assert len(re.findall(r"https?://", text)) == 0


def test_names_are_shown_letter_by_letter(parsed):
    page, _, classes = parsed
    assert set(classes) <= set(page.texts["bdi"]) | set(page.texts["option"])
    assert set(classes) <= set(page.values("title"))
    (title,) = page.texts["title"][:1]
    assert title.startswith(classes[0])


def test_the_script_gets_the_names_as_data(parsed):
    page, _, classes = parsed
    data = json.loads(page.texts["script"][0])
    assert data["classes"] == list(classes)
    assert data["path"][1] == f"val/{classes[1]}/1.jpg"


def test_the_policy_allows_this_style_and_this_script_alone(parsed):
    page, _, _ = parsed
    (policy,) = (a["content"] for t, a in page.elements if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, text in (
        ("style-src", page.texts["style"][0]),
        ("script-src", page.texts["script"][1]),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_ids_are_unique_and_every_reference_leads_somewhere(parsed):
    page, _, _ = parsed
    ids = Counter(page.values("id"))
    assert set(ids.values()) == {1}
    targets = {value.removeprefix("#") for value in page.values("href")}
    assert targets | set(page.values("aria-labelledby")) <= set(ids)


def test_headings_leave_no_level_out(parsed):
    page, _, _ = parsed
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_equal_data_make_equal_pages():
    assert render(make_page()) == render(make_page())


def test_what_is_missing_says_why():
    run = replace(make_page().runs[0], history=None, no_history="fitted by ridge.")
    page = make_page(map="no cache <b>", audit="one class only", runs=1)
    seen = Parsed(render(replace(page, runs=(run,))))
    said = seen.texts["p"]
    assert {"no cache <b>", "one class only", "fitted by ridge."} <= set(said)


def test_what_is_left_out_is_counted():
    text = render(make_page(images=24))
    assert "18 of 96 images drawn" in text
    assert "24 of 96 images of ants" in text


def test_an_image_that_moved_says_so_in_its_place():
    page = make_page()
    moved = replace(page.pictures[5], tile=-1, note="not there any more")
    pictures = (*page.pictures[:5], moved, *page.pictures[6:])
    seen = Parsed(render(replace(page, pictures=pictures)))
    assert "not there any more" in seen.texts["span"]
    data = json.loads(seen.texts["script"][0])
    assert data["note"] == {"5": "not there any more"}


def test_a_run_without_mistakes_is_told_as_one():
    run = replace(
        make_page().runs[0],
        cells=(Cell(0, 0, 3), Cell(1, 1, 4)),
        mistakes=(),
        accuracy=1.0,
    )
    text = render(replace(make_page(), runs=(run,)))
    assert "No image is taken for one of another class." in text
    assert "None: every image of val is recognised." in text


def test_empty_rows_of_a_matrix_have_no_share():
    """A class without images, and one that is never predicted."""
    run = replace(make_page().runs[0], cells=(Cell(0, 0, 3), Cell(0, 1, 1)))
    seen = Parsed(render(replace(make_page(), runs=(run,))))
    assert "\N{EN DASH}" in seen.texts["td"]
    assert sorted(seen.values("data-cell")) == ["0,0", "0,1"]


def test_a_thousand_classes_stay_small():
    page = make_page([f"class {i}" for i in range(1000)], images=3000)
    text = render(page)
    assert len(text) < 2_000_000
    assert "40 of 200 pairs" in text
    assert "The 300 smallest of 1,000 classes." in text


def test_one_point_is_a_map(tmp_path):
    page = make_page()
    one = replace(page.map, points=page.map.points[:1], pictures=(0,))
    assert isinstance(one, MapPart)
    assert 'd="M360 280' in render(replace(page, map=one))
