"""Where images come from: one module per source."""

from experiments.data.sources.source import Source

__all__ = ["Source"]
