"""Runs in a notebook: the same configuration, identity and tracking as on the command line.

result = run("model.filters=64", "training.epochs=3")
result.history; result.plot(); result.confusion; result.predict("tiger.jpg"); result.show(7)
load("best").metrics
"""

from __future__ import annotations

import dataclasses
import functools
import io
import time
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
from experiments.config.metrics import DEFAULT_FINAL, final_value
from experiments.config.wording import percent
from experiments.data import Splits, load_splits
from experiments.reports.drawing import Figure
from experiments.reports.figures import confusion_matrix, curves
from experiments.runs import finished
from experiments.runs.logged_model import layers_of
from experiments.training import evaluation


def run(*overrides: str) -> Result:
    """Train as `python train.py` with these overrides; continue an interrupted run, load a finished one.

    Raises:
        UserError: listing every mistake in `overrides`.
    """
    check_overrides(overrides, multirun=False)
    config = compose_config(overrides)
    if config.tracking.uri is None:
        raise UserError("tracking=none: a notebook loads its results from MLflow, so it needs tracking=mlflow")
    run_id = experiment.run(config, Command(overrides, started=time.time())).run_id
    return Result(finished.load_run(run_id, uri=config.tracking.uri, trust=True))


def images(*overrides: str) -> Splits:
    """The images of a run with these overrides: for training, validation and test.

    Raises:
        UserError: listing every mistake in `overrides`; or if data is missing.
    """
    config = compose_config(overrides)
    return load_splits(config.data)


def load(
    which: str = "latest",
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = finished.STORE,
    data: str | None = None,
    trust: bool = False,
) -> Result:
    """A finished run: `latest`, `best` by `metric`, an id, or the start of one.

    `experiment` or `data` says which runs are meant if there are runs of several data sets. `trust` imports a network and a data
    source of one's own that the run names, also if their source is not the one that was recorded.

    Raises:
        UserError: there is no such run, or more than one.
    """
    return Result(finished.load_run(which, experiment, metric, uri, data, trust))


class Result:
    """A finished run.

    Attributes:
        metrics: the final metrics, by their names in MLflow.
        config: its configuration.
        classes: the class names.
        model: the network, in evaluation mode; raw uint8 images (batch, 3, H, W) -> logits (batch, classes).
    """

    def __init__(self, run: finished.FinishedRun) -> None:
        self._run = run
        self.run_id, self.name, self.metrics = run.run_id, run.name, run.metrics
        self.config, self.classes, self.model = run.config, run.classes, run.model

    def __repr__(self) -> str:
        shown = ("val/loss", "test/accuracy" if self._run.examined == "test" else "val/accuracy")
        numbers = ", ".join(f"{key} {final_value(self.metrics, key):.4f}" for key in shown)
        note = f" ({self.config.evaluation.note})" if self.config.evaluation.note else ""
        return f"<run {self.name} ({self.run_id[:8]}) on {self.config.data.title}: {numbers}{note}>"

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch, one column per metric."""
        return pd.read_csv(io.StringIO(finished.read_artifact(self._run, "history.csv")), index_col="epoch")

    @property
    def network(self) -> pd.DataFrame:
        """One row per layer: its kind, output shape, and number of parameters."""
        shape = self.config.data.image_shape
        rows = [row[:3] for row in layers_of(self.model, shape).rows]
        return pd.DataFrame(rows, columns=["layer", "output shape", "parameters"])

    @functools.cached_property
    def splits(self) -> Splits:
        """The images that the run was trained, validated and tested on."""
        return self._run.splits()

    @functools.cached_property
    def confusion(self) -> pd.DataFrame:
        """Test images by true class (rows) and predicted class (columns); validation images if the run was not tested."""
        matrix = finished.read_artifact(self._run, "confusion_matrix.csv")
        counts = pd.read_csv(io.StringIO(matrix), index_col=0, keep_default_na=False).to_numpy()
        names = pd.Index(self.classes, name="true class"), pd.Index(self.classes, name="predicted class")
        return pd.DataFrame(counts, *names)

    @property
    def _evaluation(self) -> evaluation.Evaluation:
        loss = final_value(self.metrics, "test/loss" if self._run.examined == "test" else "val/loss")
        assert loss is not None
        return evaluation.Evaluation(loss, self.confusion.to_numpy())

    def plot(self) -> Figure:
        """Loss and accuracy against the epoch, with the best epoch marked."""
        return curves(self.history.to_dict("records"), int(self.metrics["best/epoch"]))

    def plot_confusion(self) -> Figure:
        """`confusion` as a figure."""
        title = [f"Accuracy on the {self._run.examined} set: {percent(self._evaluation.accuracy, 2)}"]
        title += filter(None, [self.config.evaluation.note])
        return confusion_matrix(self.confusion.to_numpy(), self.classes, ", ".join(title))

    def report(self) -> pd.DataFrame:
        """Precision, recall, F1 and support per class, computed from `confusion`."""
        report = self._evaluation.report(self.classes)
        return pd.DataFrame({name: row for name, row in report.items() if isinstance(row, dict)}).T

    def predict(self, picture: str | Path | IO[bytes] | Image.Image | np.ndarray) -> prediction.Prediction:
        """The prediction for a picture: a file name, an open file, a Pillow image, or uint8 pixels (H, W) or (H, W, 3).

        Raises:
            UserError: the file is not a picture, or the pixels have another type or shape.
        """
        if isinstance(picture, np.ndarray):
            image_like = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
            if picture.dtype != np.uint8 or not image_like:
                raise UserError(f"pixels must be uint8 (H, W) or (H, W, 3), not {picture.dtype} {picture.shape}")
            picture = Image.fromarray(picture)
        (predicted,) = prediction.predict(self._run, [str(picture) if isinstance(picture, Path) else picture])
        if isinstance(predicted, UserError):
            raise predicted
        return predicted if isinstance(picture, str | Path) else dataclasses.replace(predicted, file="picture")

    def show(self, index: int) -> Figure:
        """Test image number `index` with its prediction; the title has its true class.

        If the run was not tested, it is a validation image.
        """
        part = self._run.examined
        images = self.splits.parts()[part]
        predicted = prediction.predict_image(self._run, images, index)
        figure = figures.prediction(predicted.picture, predicted.pixels, predicted.top[:5])
        figure.suptitle(f"{part} image {index}, {images.name(index)}: {images.classes[images.labels[index]]}")
        return figure
