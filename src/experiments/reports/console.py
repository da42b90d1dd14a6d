"""The terminal, on which texts of others do nothing but appear."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from experiments.config.foreign import printable
from experiments.config.processes import launched


class Console(rich.console.Console):
    """Rich's console, which shows control characters in what it is given as visible escapes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)


def new_console(markup: bool = True) -> Console:
    """A console for stdout, of rank 0 only; a file or a pipe has no width, so nothing is cut there."""
    console = Console(highlight=False, soft_wrap=True, markup=markup, quiet=launched().rank > 0)
    if not console.is_terminal:
        console.width = 300
    return console
