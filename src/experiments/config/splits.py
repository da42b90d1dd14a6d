"""The names of the splits, for commands that must not import numpy."""

SPLITS = ("train", "validation", "test")
ALL = "all"  # the images of all splits together
