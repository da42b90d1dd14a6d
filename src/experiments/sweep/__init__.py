"""Multiruns under way: sweepers, search, study, jobs, parent run, progress."""
