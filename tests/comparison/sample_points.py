"""Points for the tests of comparisons."""

import warnings

from experiments.comparison import comparison, page
from experiments.comparison.points import Point
from experiments.config.command_line import Command

ACCURACY = "val/accuracy"


def point(value=None, status="finished", reason="", name=None, epochs=3, seconds=None, **settings):
    """A run whose second epoch was the best one; keywords are settings, `__` for a dot."""
    settings = {key.replace("__", "."): str(setting) for key, setting in settings.items()}
    history, metrics = {}, {}
    if value is not None:
        accuracies = [value - 0.1, value, *[value - 0.05] * (epochs - 2)]
        history = {ACCURACY: accuracies, "val/loss": [1 - each for each in accuracies], "epoch_seconds": [1.5] * epochs}
    if value is not None and status == "finished":
        metrics = {"best/epoch": 2.0, "parameters": 1000.0, "seconds": seconds or 5.0}
    name = " ".join(f"{key}={setting}" for key, setting in settings.items()) if name is None else name
    return Point("0123456789", name, status, settings, history, metrics, reason)


def grid(values, seeds=(1, 2, 3)):
    """{filters: an accuracy per seed} -> points."""
    return [
        point(value, filters=filters, seed=seed)
        for filters, row in values.items()
        for seed, value in zip(seeds, row)
        if value is not None
    ]


def compared(points, objectives=(ACCURACY,), **changes):
    return comparison.Comparison(
        points=points, objectives=objectives, **{"title": "t", "command": Command(("c",)), **changes}
    )


def written(folder, points, objectives=(ACCURACY,), **changes):
    """The page, made without a single warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.write(folder, compared(points, objectives, **changes))
    return (folder / "report.html").read_text(encoding="utf-8")
