"""Frozen features, computed before the first epoch with a bar, and the line that says so."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.data import Splits
from experiments.reports import terminal
from experiments.training.features import Features, cache_folder, frozen_features
from experiments.training.learner import Learner


def prepared(learner: Learner, splits: Splits) -> Splits:
    """What the learner takes: the images, or the features of the frozen backbone. Prints a line if the backbone is frozen."""
    if learner.cut is None:
        if learner.not_cut:
            _say(f"the frozen backbone computes them again in every epoch, because {learner.not_cut}")
        return splits
    console, config = terminal.console, learner.config
    columns = (TextColumn("features"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        images = sum(map(len, splits.parts().values()))
        task = bar.add_task("", total=images)
        features = frozen_features(
            config,
            learner.cut.backbone(learner.model),
            splits,
            learner.device,
            learner.autocast,
            lambda count: bar.advance(task, count),
        )
    _say(f"{_described(features)} {cache_folder(config)}; only the head is trained on them")
    return features.splits


def _described(features: Features) -> str:
    size = f"of {features.images:,} different images ({features.nbytes / 1e6:,.1f} MB)"
    if features.seconds is None:
        return f"{size}, read from"
    return f"{size}, computed once in {features.seconds:.1f} s and kept in"


def _say(text: str) -> None:
    terminal.console.print(f"[bold]features[/bold]   {text}\n")
