"""Runs in a notebook: the same configuration, identity and tracking as on the command line, and the result at hand.

result = run("model.filters=64", "training.epochs=3")
result.history; result.plot(); result.confusion; result.predict("tiger.jpg"); result.show(7)
load("best").metrics
"""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from PIL import Image

from experiments import experiment
from experiments.analysis import figures, prediction
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.loading import check_overrides, compose_config
from experiments.config.metrics import DEFAULT_FINAL
from experiments.data import Splits, load_splits
from experiments.models.classifier import list_layers
from experiments.reports.drawing import Figure
from experiments.reports.figures import confusion_matrix, curves
from experiments.runs import finished
from experiments.training import evaluation


def run(*overrides: str) -> Result:
    """Train as `python train.py` with these overrides does; continue, or bring back, what was run before.

    Raises:
        UserError: listing every mistake in `overrides`.
    """
    check_overrides(overrides, multirun=False)
    config = compose_config(overrides)
    if config.tracking.uri is None:
        raise UserError("tracking=none: a notebook brings its results back from MLflow, so it needs tracking=mlflow")
    return Result(finished.load_run(experiment.run(config, Command(overrides)).run_id, uri=config.tracking.uri))


def images(*overrides: str) -> Splits:
    """The images that a run with these overrides would train on, validate with and be tested on.

    Raises:
        UserError: listing every mistake in `overrides`, or where data is missing.
    """
    config = compose_config(overrides)
    return load_splits(config.data, config.seed)


def load(
    which: str = "latest", experiment: str | None = None, metric: str = DEFAULT_FINAL, uri: str = finished.STORE
) -> Result:
    """A finished run: `latest`, `best` by `metric`, an id, or the start of one.

    Raises:
        UserError: where there is no such run.
    """
    return Result(finished.load_run(which, experiment, metric, uri))


class Result:
    """A finished run.

    Attributes:
        metrics: the final ones, by the names that they have in MLflow.
        config: what it was run with.
        classes: the class names.
        model: the network, in evaluation mode; takes raw uint8 pictures.
    """

    def __init__(self, trained: finished.FinishedRun) -> None:
        self._trained = trained
        self.run_id, self.name = trained.run_id, trained.name
        self.metrics, self.config, self.classes, self.model = (
            trained.metrics,
            trained.config,
            trained.classes,
            trained.model,
        )

    def __repr__(self) -> str:
        shown = ("best/val_loss", "test/accuracy" if self._trained.examined == "test" else "best/val_accuracy")
        numbers = ", ".join(f"{key} {self.metrics[key]:.4f}" for key in shown)
        note = f" ({self.config.evaluation.note})" if self.config.evaluation.note else ""
        return f"<run {self.name} ({self.run_id[:8]}): {numbers}{note}>"

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch, a column a metric."""
        return pd.read_csv(io.StringIO(finished.read_artifact(self._trained, "history.csv")), index_col="epoch")

    @property
    def network(self) -> pd.DataFrame:
        """A row a layer: its kind, output shape, and number of parameters."""
        size = self._trained.image_size
        return pd.DataFrame(list_layers(self.model, (3, size, size)), columns=["layer", "output shape", "parameters"])

    @functools.cached_property
    def splits(self) -> Splits:
        """The images that it was trained, validated and tested on."""
        return self._trained.splits()

    @functools.cached_property
    def confusion(self) -> pd.DataFrame:
        """Test pictures by true class (rows) and predicted class (columns); validation pictures of a run not tested."""
        matrix = finished.read_artifact(self._trained, "confusion_matrix.csv")
        counts = pd.read_csv(io.StringIO(matrix), index_col=0, keep_default_na=False).to_numpy()
        names = pd.Index(self.classes, name="true class"), pd.Index(self.classes, name="predicted class")
        return pd.DataFrame(counts, *names)

    @property
    def _evaluation(self) -> evaluation.Evaluation:
        loss = self.metrics.get("test/loss", self.metrics["best/val_loss"])
        return evaluation.Evaluation(loss, self.confusion.to_numpy())

    def plot(self) -> Figure:
        """Loss and accuracy against the epoch, with the best epoch marked."""
        return curves(self.history.to_dict("records"), int(self.metrics["best/epoch"]))

    def plot_confusion(self) -> Figure:
        """`confusion` as a picture."""
        title = [f"{self._trained.examined.capitalize()} set: {self._evaluation.accuracy:.2%} right"]
        title += filter(None, [self.config.evaluation.note])
        return confusion_matrix(self.confusion.to_numpy(), self.classes, ", ".join(title))

    def report(self) -> pd.DataFrame:
        """Precision, recall, F1 and support of each class, by `confusion`."""
        report = self._evaluation.report(self.classes)
        del report["accuracy"]
        return pd.DataFrame(report).T

    def predict(self, picture: str | Path | IO[bytes] | Image.Image | np.ndarray) -> prediction.Prediction:
        """What the network says of a picture: a file, an open one, a Pillow image, or uint8 pixels (H, W, 3).

        Raises:
            UserError: where the file is not a picture.
        """
        if isinstance(picture, np.ndarray):
            if (
                picture.dtype != np.uint8
                or picture.ndim not in (2, 3)
                or (picture.ndim == 3 and picture.shape[2] not in (3, 4))
            ):
                raise UserError(f"pixels must be uint8 (H, W) or (H, W, 3), not {picture.dtype} {picture.shape}")
            picture = Image.fromarray(picture)
        (answer,) = prediction.predict(self._trained, [str(picture) if isinstance(picture, Path) else picture])
        if isinstance(answer, UserError):
            raise answer
        return answer if isinstance(picture, str | Path) else dataclasses.replace(answer, file="picture")

    def show(self, index: int) -> Figure:
        """Test picture number `index` with what the network says of it; the title tells the truth.

        Of a run that was not tested, a validation picture.
        """
        part = self._trained.examined
        images = self.splits.test if part == "test" else self.splits.validation
        answer = self.predict(images.image(index).transpose(1, 2, 0))
        figure = figures.prediction(answer.picture, answer.pixels, answer.top[:5])
        figure.suptitle(f"{part} picture {index}: {images.classes[images.labels[index]]}")
        return figure
