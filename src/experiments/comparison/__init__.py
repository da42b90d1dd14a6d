"""Multiruns read: points, ranking, significance, importance, figures, page."""
