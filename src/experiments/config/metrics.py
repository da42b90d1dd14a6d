"""The table of metrics: everything that depends on the name of a metric is read from its row.

A metric of an evaluation is an attribute of `training.evaluation.Evaluation` of the same name: val/accuracy is its
`accuracy`. So a new metric is a row here and a property there. The row of val/accuracy also stands for test/accuracy, the
same metric of a test set, for kept/val_accuracy, its value with the weights that are kept, and for best/val_accuracy, its
value at the best epoch: with early_stopping.restore_best=false, the weights of the last epoch are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        written: when it is logged: after every epoch, at the end of training, with an evaluation of a split, with that of
            calibrated probabilities, or with one of corrupted images (step 1 to 5: the strength).
        monitor: early stopping may watch it.
        objective: a multirun may rank by it.
        at_most: its largest possible value; fractions, whose largest value is 1, are shown in percent.
    """

    name: str
    higher_is_better: bool
    written: Literal["epoch", "end", "evaluation", "calibration", "corruptions"]
    monitor: bool = False
    objective: bool = False
    at_most: float | None = None


METRICS = (
    Metric("train/loss", False, "epoch", monitor=True),
    Metric("train/accuracy", True, "epoch", monitor=True, at_most=1),
    Metric("val/loss", False, "epoch", monitor=True, objective=True),
    Metric("val/accuracy", True, "epoch", monitor=True, objective=True, at_most=1),
    Metric("learning_rate", False, "epoch"),
    Metric("epoch_seconds", False, "epoch"),
    Metric("images_per_second", True, "epoch"),
    Metric("kept/epoch", False, "end"),
    Metric("parameters", False, "end", objective=True),
    Metric("trainable_parameters", False, "end"),
    Metric("seconds", False, "end", objective=True),
    Metric("test/macro_f1", True, "evaluation", at_most=1),
    Metric("test/f1/<class>", True, "evaluation", at_most=1),
    Metric("temperature", False, "end"),
    Metric("test/ece", False, "calibration", at_most=1),  # before calibration, as test/loss is
    Metric("test/brier", False, "calibration", at_most=2),
    Metric("test/calibrated_loss", False, "calibration"),
    Metric("test/calibrated_ece", False, "calibration", at_most=1),
    Metric("test/calibrated_brier", False, "calibration", at_most=2),
    Metric("test/corrupted_accuracy", True, "corruptions", at_most=1),  # mean over all corruptions and strengths
    Metric("test/corrupted_ratio", True, "corruptions"),  # to the accuracy of the same images without corruption
    Metric("test/corrupted/<corruption>", True, "corruptions", at_most=1),
)
_ROWS = {metric.name: metric for metric in METRICS}

EPOCH_METRICS = tuple(metric.name for metric in METRICS if metric.written == "epoch")
MONITORS = tuple(metric.name for metric in METRICS if metric.monitor)
OBJECTIVES = tuple(metric.name for metric in METRICS if metric.objective)
SELECTING = tuple(metric.name for metric in METRICS if metric.objective and metric.written == "epoch")
_OF_SPLITS = {name.partition("/")[2]: row for name, row in _ROWS.items() if name.startswith(("val/", "test/"))}
EVALUATED = tuple(end for end, row in _OF_SPLITS.items() if row.written in ("epoch", "evaluation") and "<" not in end)
CALIBRATED = tuple(end for end, row in _OF_SPLITS.items() if row.written == "calibration")
DEFAULT_FINAL = "kept/val_loss"  # the best run has the best value of this metric
_IN_ONE_EPOCH = {name: name.replace("/", "_") for name in EPOCH_METRICS if name.startswith("val/")}


def of_epoch(prefix: Literal["kept", "best"], epoch: int, values: Mapping[str, float]) -> dict[str, float]:
    """The final metrics of an epoch, such as kept/epoch and kept/val_loss, from the values of its metrics."""
    measured = {f"{prefix}/{end}": values[name] for name, end in _IN_ONE_EPOCH.items() if name in values}
    return {f"{prefix}/epoch": epoch, **measured}


def final_value(metrics: Mapping[str, float], name: str) -> float | None:
    """The value of a metric in the metrics of a run; of a metric per epoch, that of the weights that are kept.

    Runs of version 0.1 lack kept/..., so they are read with best/...
    """
    name = f"kept/{_IN_ONE_EPOCH[name]}" if name in _IN_ONE_EPOCH else name
    return metrics.get(name, metrics.get(f"best/{name.removeprefix('kept/')}"))


def find(name: str) -> Metric | None:
    """The row of a metric; an evaluation of any split has the metrics of an evaluation, every class an F1, and every
    corruption an accuracy. A run that is not tested has kept/val_ece in place of test/ece.
    """
    _, _, rest = name.partition("/")
    for group, each in (("f1/", "<class>"), ("corrupted/", "<corruption>")):
        if rest.startswith(group):
            return _ROWS[f"test/{group}{each}"]
    of_split = rest.removeprefix("val_")
    names = (name, f"val/{of_split}", f"test/{of_split}", f"kept/{rest}")
    return next((_ROWS[name] for name in names if name in _ROWS), None)


def higher_is_better(name: str) -> bool:
    metric = find(name)
    return metric is not None and metric.higher_is_better


def at_most(name: str) -> float | None:
    """The largest possible value, if there is one."""
    metric = find(name)
    return metric.at_most if metric else None
