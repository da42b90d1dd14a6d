"""The table of metrics: everything that depends on the name of a metric is read from its row.

A metric of an evaluation is an attribute of `training.evaluation.Evaluation` of the same name: val/accuracy is its
`accuracy`. So a new one is a row here and a property there.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        written: after every epoch; once at the end of training; or with an evaluation of a split.
        monitor: early stopping may monitor it.
        objective: a multirun may rank by it.
        at_most: its largest possible value; 1 for fractions, which are shown as percentages.
        best: the final metric that has its value at the best epoch.
    """

    name: str
    higher_is_better: bool
    written: Literal["epoch", "end", "evaluation"]
    monitor: bool = False
    objective: bool = False
    at_most: float | None = None
    best: str | None = None


METRICS = (
    Metric("train/loss", False, "epoch", monitor=True),
    Metric("train/accuracy", True, "epoch", monitor=True, at_most=1),
    Metric("val/loss", False, "epoch", monitor=True, objective=True, best="best/val_loss"),
    Metric("val/accuracy", True, "epoch", monitor=True, objective=True, at_most=1, best="best/val_accuracy"),
    Metric("learning_rate", False, "epoch"),
    Metric("epoch_seconds", False, "epoch"),
    Metric("images_per_second", True, "epoch"),
    Metric("best/epoch", False, "end"),
    Metric("best/val_loss", False, "end"),
    Metric("best/val_accuracy", True, "end", at_most=1),
    Metric("parameters", False, "end", objective=True),
    Metric("seconds", False, "end", objective=True),
    Metric("test/loss", False, "evaluation"),
    Metric("test/accuracy", True, "evaluation", at_most=1),
    Metric("test/macro_f1", True, "evaluation", at_most=1),
    Metric("test/f1/<class>", True, "evaluation", at_most=1),
)
_BY_NAME = {metric.name: metric for metric in METRICS}

EPOCH_METRICS = tuple(metric.name for metric in METRICS if metric.written == "epoch")
MONITORS = tuple(metric.name for metric in METRICS if metric.monitor)
OBJECTIVES = tuple(metric.name for metric in METRICS if metric.objective)
SELECTING = tuple(metric.name for metric in METRICS if metric.objective and metric.written == "epoch")
EVALUATED = tuple(
    metric.name.removeprefix("test/") for metric in METRICS if metric.written == "evaluation" and "<" not in metric.name
)
DEFAULT_FINAL = "best/val_loss"  # chooses the best run


def find(name: str) -> Metric | None:
    """The row of a metric; an evaluation of any split has the metrics of the test set, and every class has an F1."""
    _, _, rest = name.partition("/")
    of_class = "test/f1/<class>" if rest.startswith("f1/") else None
    return _BY_NAME.get(name) or _BY_NAME.get(of_class or f"test/{rest}")


def was_tested(metrics: Container[str]) -> bool:
    """Whether the run with these final metrics was evaluated on the test set."""
    return "test/loss" in metrics


def higher_is_better(name: str) -> bool:
    metric = find(name)
    return metric is not None and metric.higher_is_better


def at_most(name: str) -> float | None:
    """The largest possible value, if there is one."""
    metric = find(name)
    return metric.at_most if metric else None


def final_name(name: str) -> str:
    """The final metric with the value of `name` at the best epoch; the name of a final metric is returned as it is."""
    metric = find(name)
    return (metric.best if metric else None) or name
