"""Words agree with their number."""

import pytest

from experiments.config.wording import counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "file"), "0 files"),
        ((1, "file"), "1 file"),
        ((2000, "file"), "2,000 files"),
        ((1, "class", "classes"), "1 class"),
        ((2, "file is", "files are"), "2 files are"),
    ],
)
def test_a_word_agrees_with_its_number(arguments, text):
    assert counted(*arguments) == text
