"""The table of a network's layers, for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from experiments.models.classifier import Layers


def table(layers: Layers) -> Table:
    """One row per layer; those that are frozen are marked."""
    marked = any(row.frozen for row in layers.rows)
    headings = ("layer", "output shape", "parameters", *([""] if marked else []))
    rows = Table(*headings, box=None, padding=(0, 3, 0, 0))
    rows.columns[2].justify = "right"
    for row in layers.rows:
        count = f"{row.parameters:,}" if row.parameters else ""
        rows.add_row(escape(row.kind), " x ".join(map(str, row.shape)), count, *([row.frozen] if marked else []))
    return rows
