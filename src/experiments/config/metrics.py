"""The metrics: names, and which of them early stopping and multiruns may use."""

from __future__ import annotations

from typing import Literal

Metric = Literal["train/loss", "train/accuracy", "val/loss", "val/accuracy"]  # what early stopping can watch
Objective = Literal["val/accuracy", "val/loss", "parameters", "seconds"]  # what a multirun can rank by
EPOCH_METRICS = (
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "learning_rate",
    "epoch_seconds",
    "images_per_second",
)
