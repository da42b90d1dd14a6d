"""Multiruns: sweepers, grids and searches, their jobs, the parent run in MLflow, progress."""
