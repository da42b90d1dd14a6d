"""Comparisons of runs: points, ranking, significance, importance, figures, page."""
