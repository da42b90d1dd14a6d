"""A finished run loaded from MLflow: its configuration, its classes, its network, its data.

run = load_run("best")                  # or "latest", or a run's id, or the start of an id
run.probabilities(run.splits().test)
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from experiments.config import Config, DataSettings, UserError
from experiments.config.metrics import DEFAULT_FINAL
from experiments.data import Images, Splits, load_splits
from experiments.data import membership as members
from experiments.data.batches import Batches
from experiments.data.membership import Membership
from experiments.models.classifier import Classifier
from experiments.runs.data_sets import check_place
from experiments.runs.finding import STORE
from experiments.runs.logged_model import TRUST, Logged, rebuilt
from experiments.runs.recorded import artifact, has_artifact, read_membership, read_run
from experiments.training import calibration, devices, evaluation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as it is stored in MLflow.

    Attributes:
        uri: the address of MLflow's store.
        model: on the CPU, in evaluation mode; raw uint8 images (batch, 3, H, W) -> logits (batch, classes), calibrated.
        logged: the files of the model.
        trusted: whether classes that its configuration names are imported, and its files are loaded unchecked.
        metrics: the final metrics, by their names in MLflow.
    """

    run_id: str
    name: str
    experiment_id: str
    uri: str
    config: Config
    classes: tuple[str, ...]
    model: Classifier
    logged: Logged
    metrics: dict[str, float]
    trusted: bool

    def __str__(self) -> str:
        """The run and its data, for every answer about it."""
        return f"run {self.name} ({self.run_id}), trained on {self.config.data.title}"

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that the network takes."""
        return self.config.data.image_size

    def logits(self, pixels: np.ndarray | Images) -> torch.Tensor:
        """Logits, float32 (N, classes), of raw images, uint8 (N, 3, H, W) or `Images`, bit-identical to those of the run.

        They are not divided by the temperature: loss and metrics of an evaluation are those of the network as it was trained.
        With the run's `evaluation.tta` they are means over several views, as in the evaluation of the run.
        """
        images = pixels
        if isinstance(images, np.ndarray):
            images = Images(images, np.zeros(len(images), dtype=np.int64), self.classes)
        batches = Batches(images, evaluation.batch_size(images.shape), torch.device("cpu"))
        model, autocast = self.model.uncalibrated(), devices.autocast(self.config, "cpu")
        return evaluation.predict(model, batches, autocast, self.config.evaluation.tta)

    def probabilities(self, pixels: np.ndarray | Images) -> np.ndarray:
        """Class probabilities, float32 (N, classes), of raw images, see `logits`; calibrated if the run is."""
        return calibration.probabilities(self.logits(pixels), self.model.temperature)

    @property
    def examined(self) -> Literal["test", "validation"]:
        """The split that the run was evaluated on: test, or validation if it was not tested (most points of a multirun)."""
        return "test" if "test/loss" in self.metrics else "validation"

    @functools.cached_property
    def membership(self) -> Membership | None:
        """The pictures of its splits; None if an earlier version made the run, which did not keep them."""
        return read_membership(self.uri, self.run_id)

    def has_artifact(self, name: str) -> bool:
        """Whether a file lies among the run's artifacts; an earlier version may not have written it."""
        return has_artifact(self.uri, self.run_id, name)

    def splits(self) -> Splits:
        """The images that the run was trained, validated and tested on, read again; logs what has changed since.

        Raises:
            UserError: the data is missing.
        """
        self.check_source()
        splits, changes = self.find_splits(self.config.data)
        if changes:
            log.warning("run %s: %s", self.run_id[:8], changes)
        return splits

    def check_source(self) -> None:
        """Check that the class which reads the run's own data may be imported.

        Raises:
            UserError: it may not.
        """
        target = self.config.data._target_
        if not (self.trusted or self.logged.may_import("data", target)):
            raise UserError(
                f"run {self.run_id}: its data is read by {target}, whose source is not the recorded one; {TRUST}"
            )

    @property
    def program(self) -> torch.export.ExportedProgram:
        """The exported network."""
        return self.logged.program(self.config, self.trusted)

    def find_splits(self, settings: DataSettings) -> tuple[Splits, str]:
        """The splits of the run among the images of `settings`, found by their pixels, and what has changed, in words.

        Raises:
            UserError: the data is missing.
        """
        found, changes = None, "an earlier version made it, which did not keep its splits"
        if self.membership:
            found, changes = members.find_again(settings, self.membership, self.classes)
        if found is None:
            if self.membership:
                check_place(self.config.data, settings)
            today = load_splits(settings)
            return Splits(*map(self.with_its_classes, today.parts().values())), f"{changes}; they are drawn again"
        return found, changes

    def with_its_classes(self, images: Images) -> Images:
        """The same images with the labels of the network's classes, matched by name.

        Raises:
            UserError: the network does not know one of their classes.
        """
        present = [images.classes[label] for label in np.flatnonzero(images.class_counts)]
        unknown = [name for name in present if name not in self.classes]
        if unknown:
            raise UserError(f"this network does not know {', '.join(unknown)}; it knows {', '.join(self.classes)}")
        place = np.array([self.classes.index(name) if name in present else -1 for name in images.classes])
        return Images(images.source, place[images.labels], self.classes, images.indices)


def load_run(
    which: str = "latest",
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = STORE,
    data: str | None = None,
    trust: bool = False,
) -> FinishedRun:
    """Load the run that `find_run` returns. Nothing that it contains is run as code.

    Args:
        trust: import a network and a data source of one's own also if their source is not the one that was recorded.

    Raises:
        UserError: there is no such run, or its files are missing or damaged.
    """
    found = read_run(which, experiment, metric, uri, data)
    model, difference = rebuilt(found.config, found.logged, trust)
    run = found.run
    if difference:
        log.warning("run %s: %s: its logged model is used", run.info.run_id[:8], difference)
    return FinishedRun(
        run.info.run_id,
        run.info.run_name,
        run.info.experiment_id,
        found.uri,
        found.config,
        found.logged.classes,
        model,
        found.logged,
        dict(run.data.metrics),
        trust,
    )


def read_artifact(run: FinishedRun, name: str) -> str:
    """The text of one of a run's artifacts."""
    return artifact(run.uri, run.run_id, name).decode()
