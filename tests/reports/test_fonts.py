"""Names in any script, in figures."""

import io
import warnings

import numpy as np
import pytest

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
