"""What all pictures share: fonts that have the letters, names that fit, colours."""

import sys
import warnings
from itertools import combinations
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure

from featcache.core.errors import DependencyError, SpecError
from featcache.core.progress import SILENT
from featcache.viz import fonts
from featcache.viz.style import (
    class_styles,
    colour_note,
    drawing,
    picture_kind,
    save_figure,
    shortened,
    text_width,
)

CHINESE, THAI, HOOKED = "\u8682\u8681", "\u0e21\u0e14", "\u1d81"


@pytest.fixture
def bare(monkeypatch):
    """A machine with no fonts but those that come with matplotlib."""
    own = mpl.get_data_path()
    entries = font_manager.fontManager.ttflist
    shipped = [entry for entry in entries if entry.fname.startswith(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    for cached in (fonts._found, fonts._files):
        cached.cache_clear()
    yield
    for cached in (fonts._found, fonts._files):
        cached.cache_clear()


def test_letters_that_no_font_has_are_said_once_and_drawn_as_boxes(bare, tmp_path):
    """Never as a warning of matplotlib, which is an error here."""
    said = []
    names = (CHINESE, THAI, "ants", CHINESE[::-1], "\U0001f41d bee")
    with drawing(names, said.append, size=(3, 2)) as picture:
        picture.subplots().set_yticks(range(5), names)
    save_figure(picture, tmp_path / "boxes.png", "png")
    save_figure(picture, tmp_path / "boxes.svg", "svg")
    picture.draw_without_rendering()
    (line,) = said
    assert line == (
        "no installed font has all letters of 4 names (CJK, Thai, signs); they are "
        "drawn as boxes; install a font such as Noto Sans CJK, Noto Sans Thai, Symbola"
    )


def test_letters_of_another_font_are_found_there(bare):
    """One that comes with matplotlib: DejaVu has no d with a palatal hook."""
    said = []
    assert fonts.families_for((HOOKED, "ants"), said.append) == [
        "DejaVu Sans",
        "STIXGeneral",
    ]
    assert fonts.families_for(("ants",), said.append) == ["DejaVu Sans"]
    assert said == []


def test_the_boxes_of_the_last_resort_are_no_letters(bare):
    """Matplotlib 3.11 brings a font that has a box for every letter there is."""
    assert not any("LastResort" in file for file in fonts._files())


@pytest.mark.parametrize(
    ("name", "script"), [("\u0634\u0644", "Arabic"), ("\u0928\u0940", "Devanagari")]
)
def test_an_old_matplotlib_says_what_it_does_not_join(name, script, monkeypatch):
    """From 3.11 on right-to-left names are ordered, and nothing is said of them."""
    monkeypatch.setattr(ft2font, "__libraqm_version__", "0.10", raising=False)
    said = []
    fonts._warn_of_shaping(frozenset(name), said.append)
    assert said == []
    monkeypatch.delattr(ft2font, "__libraqm_version__")
    fonts._warn_of_shaping(frozenset(name), said.append)
    (line,) = said
    assert f"draws {script} letters one by one from left to right" in line


def test_a_dollar_begins_no_formula(tmp_path):
    """Neither in texts nor in tick labels that are made when the picture is drawn."""
    with drawing(("$x^{",), SILENT.say, size=(2, 2)) as picture:
        axes = picture.subplots()
        axes.set_title("$x^{")
        axes.set_xticks([0.5], ["$\\frac"])
    save_figure(picture, tmp_path / "p.svg", "svg")
    texts = ET.parse(tmp_path / "p.svg").iter("{http://www.w3.org/2000/svg}text")
    assert {"$x^{", "$\\frac"} <= {text.text for text in texts}


def test_a_picture_is_a_figure_that_notebooks_show():
    with drawing((), SILENT.say, size=(2, 1)) as picture:
        picture.subplots()
    assert isinstance(picture, Figure)
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_the_settings_of_the_user_do_not_change_a_picture():
    """And the picture does not change them."""

    def drawn():
        with drawing(("ants",), SILENT.say, size=(2, 1)) as picture:
            picture.subplots().set_title("ants")
        return picture

    plain = drawn()
    expected = plain.png()
    loud = {"font.size": 30, "axes.facecolor": "red", "font.family": ["serif"]}
    with mpl.rc_context(loud):
        before = dict(mpl.rcParams)
        assert drawn().png() == expected == plain.png()
        assert dict(mpl.rcParams) == before


def test_equal_pictures_make_equal_files(tmp_path):
    """No time of day, no random names."""

    def saved(kind):
        with drawing(("ants",), SILENT.say, size=(2, 1)) as picture:
            picture.subplots().plot([1, 2])
        save_figure(picture, tmp_path / "p", kind)
        return (tmp_path / "p").read_bytes()

    assert saved("png") == saved("png")
    assert saved("svg") == saved("svg")
    assert b"dc:date" not in saved("svg")


def test_without_matplotlib_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with (
        pytest.raises(DependencyError, match=r"pip install 'featcache\[plot\]'"),
        drawing((), SILENT.say, size=(1, 1)),
    ):
        pass


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=60)
)
def test_shortened_names_fit_and_keep_both_ends(name):
    """Whatever the letters; one that fits stays as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs, which `drawing` says in words
        short = shortened(name, 60, 8)
        assert short == name or text_width(short, 8) <= 60
        if text_width(name, 8) <= 60:
            assert short == name
    head, ellipsis, tail = short.partition("\N{HORIZONTAL ELLIPSIS}")
    if short != name:
        assert ellipsis
        assert name.startswith(head)
        assert name.endswith(tail)


def test_letters_keep_their_marks():
    """An accent is not cut off what it stands on."""
    name = "e\u0301" * 50
    short = shortened(name, 60, 8)
    assert len(short) < len(name)
    assert short.replace("e\u0301", "") == "\N{HORIZONTAL ELLIPSIS}"


@pytest.mark.parametrize("classes", [1, 2, 8, 9, 24])
def test_classes_look_different_as_long_as_they_can(classes):
    styles = class_styles(classes)
    assert len(set(styles)) == classes
    assert colour_note(classes) == ""
    assert all(a != b for a, b in combinations(styles, 2))


def test_more_classes_than_colours_run_from_dark_to_light_and_it_is_said():
    styles = class_styles(1000)
    light = [sum(int(s.colour[i : i + 2], 16) for i in (1, 3, 5)) for s in styles]
    assert len(styles) == 1000
    assert light[0] < light[500] < light[-1]
    assert "1,000 classes, more than colours" in colour_note(1000)


@pytest.mark.parametrize("name", ["a.png", "A.SVG", "b.c.PNG"])
def test_a_picture_is_png_or_svg_by_its_ending(name, tmp_path):
    assert picture_kind(tmp_path / name) == name[-3:].lower()


@pytest.mark.parametrize("name", ["a.jpg", "png", ".png", "a.png.gz"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(
        SpecError, match=r"a picture's file ends in \.png or \.svg, got"
    ):
        picture_kind(tmp_path / name)
