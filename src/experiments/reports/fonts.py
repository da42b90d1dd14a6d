"""Fonts for the characters that matplotlib's own font lacks, as in Chinese, Japanese or Korean names of classes."""

from __future__ import annotations

import contextlib
import functools
import logging
import unicodedata

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

LAST_RESORT = "Last Resort"  # the start of the name of a font that has a box for every character
log = logging.getLogger(__name__)


def complete(figure: Figure) -> None:
    """Add installed fonts to every text of the figure that has characters which the default font lacks."""
    texts = {text: _missing(text.get_text()) for text in figure.findobj(Text) if isinstance(text, Text)}
    families = _families(frozenset().union(*texts.values()))
    for text, missing in texts.items():
        if missing and families:
            text.set_fontfamily([*matplotlib.rcParams["font.family"], *families])


def _missing(text: str) -> frozenset[str]:
    return frozenset(
        char for char in text if ord(char) not in _characters(_default()) and unicodedata.category(char) != "Cc"
    )


@functools.cache
def _default() -> str:
    return findfont(FontProperties())


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """The characters of a font; none if the file cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@functools.cache
def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib had saved its list of fonts, which it never renews."""
    for file in sorted(set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}):
        with contextlib.suppress(RuntimeError, OSError):  # a file that is no font
            fontManager.addfont(file)


@functools.cache  # what no font has is logged once
def _families(wanted: frozenset[str]) -> tuple[str, ...]:
    """The families of the fonts that have these characters, regular ones first."""
    left, families = {ord(char) for char in wanted}, []
    if left:
        _add_new_fonts()
    for font in sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.weight != 400, font.name)):
        if not left:
            break
        if not font.name.startswith(LAST_RESORT) and left & (found := _characters(font.fname)):
            families.append(font.name)
            left -= found
    if left:
        shown = " ".join(map(chr, sorted(left)[:20]))
        log.warning("no installed font has %s: figures have boxes there (a font such as Noto Sans CJK may help)", shown)
    return tuple(families)
