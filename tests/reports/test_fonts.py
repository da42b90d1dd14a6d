"""Names in any script, in figures."""

import io
import itertools
import warnings

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

from experiments.reports import fonts
from experiments.reports.drawing import save
from experiments.reports.figures import confusion_matrix


def drawn(folder, *classes):
    figure = confusion_matrix(np.eye(len(classes), dtype=int), classes, "title")
    save(figure, folder / "figure.png")
    return figure


def test_characters_are_drawn_with_an_installed_font_that_has_them(tmp_path, caplog):
    figure = drawn(tmp_path, "\u210a", "cat")  # matplotlib brings a font that has it, which is not its default
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO())
    assert caplog.text == ""
    first, second = figure.axes[0].get_xticklabels()
    assert first.get_fontfamily() != second.get_fontfamily()


def test_characters_that_no_font_has_are_named_once(tmp_path, caplog):
    for _ in range(2):
        figure = drawn(tmp_path, "\U0010fffd", "cat")
    assert caplog.text.count("no installed font has \U0010fffd") == 1
    with pytest.warns(UserWarning, match="missing from"):
        figure.savefig(io.BytesIO())


def test_a_font_that_is_installed_later_is_found(tmp_path, monkeypatch, caplog):
    """matplotlib saves its list of fonts once."""
    script = "\u210a"
    having = {font for font in fontManager.ttflist if ord(script) in FT2Font(font.fname).get_charmap()}
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font not in having])
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [font.fname for font in having])
    for cached in (fonts._add_new_fonts, fonts._families):
        cached.cache_clear()
    figure = drawn(tmp_path, script, "cat")
    assert caplog.text == ""
    *_, family = figure.axes[0].get_xticklabels()[0].get_fontfamily()
    assert family in {font.name for font in having if not font.name.startswith(fonts.LAST_RESORT)}


@pytest.mark.parametrize(
    "classes", [["0", "1", "2"] * 4, ["a name of many letters", "b", "c", "d"], ["写真を撮る犬"] * 5]
)
def test_names_of_columns_do_not_collide(tmp_path, classes):
    figure = drawn(tmp_path, *classes)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    assert figure.axes[0].get_xticklabels()[0].get_rotation() == (0 if len(classes) == 12 else 90)
