"""A finished run loaded from MLflow: its configuration, its classes, its network, its data.

run = load_run("best")                  # or "latest", or a run's id, or the start of an id
run.probabilities(run.splits().test)
"""

from __future__ import annotations

import functools
import logging
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from experiments.config import Config, DataSettings, UserError
from experiments.config.composition import with_defaults
from experiments.config.defaults import default
from experiments.config.keys import SHOWN_DIGITS
from experiments.config.metrics import DEFAULT_FINAL
from experiments.data import Images, Splits, load_splits
from experiments.data import membership as members
from experiments.data.batches import Batches
from experiments.data.membership import Membership
from experiments.models.classifier import Classifier
from experiments.runs import store
from experiments.runs.best import best_run
from experiments.runs.data_sets import all_have_that_of, check_place, of_one_data_set
from experiments.runs.export import read_model
from experiments.runs.logged_model import rebuilt
from experiments.training import devices, evaluation

log = logging.getLogger(__name__)

STORE: str = default("tracking.uri")
# Only training runs have a fingerprint; evaluations of them and the parents of multiruns have no model.
FINISHED_RUNS = f"status = '{store.FINISHED}' and tags.{store.TAG_FINGERPRINT} != ''"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as it is stored in MLflow.

    Attributes:
        uri: the address of MLflow's store.
        model: on the CPU, in evaluation mode; raw uint8 images (batch, 3, H, W) -> logits (batch, classes).
        metrics: the final metrics, by their names in MLflow.
    """

    run_id: str
    name: str
    experiment_id: str
    uri: str
    config: Config
    classes: tuple[str, ...]
    model: Classifier
    metrics: dict[str, float]

    def __str__(self) -> str:
        """The run and its data, for every answer about it."""
        return f"run {self.name} ({self.run_id}), trained on {self.config.data.title}"

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that the network takes."""
        return self.config.data.image_size

    def logits(self, pixels: np.ndarray | Images) -> torch.Tensor:
        """Logits, float32 (N, classes), of raw images, uint8 (N, 3, H, W) or `Images`, bit-identical to those of the run.

        With the run's `evaluation.tta` they are means over several views, as in the evaluation of the run.
        """
        images = pixels
        if isinstance(images, np.ndarray):
            images = Images(images, np.zeros(len(images), dtype=np.int64), self.classes)
        batches = Batches(images, evaluation.batch_size(images.shape), torch.device("cpu"))
        return evaluation.predict(self.model, batches, devices.autocast(self.config, "cpu"), self.config.evaluation.tta)

    def probabilities(self, pixels: np.ndarray | Images) -> np.ndarray:
        """Class probabilities, float32 (N, classes), of raw images, see `logits`."""
        return self.logits(pixels).softmax(dim=1).numpy()

    @property
    def examined(self) -> Literal["test", "validation"]:
        """The split that the run was evaluated on: test, or validation if it was not tested (most points of a multirun)."""
        return "test" if "test/loss" in self.metrics else "validation"

    @functools.cached_property
    def membership(self) -> Membership | None:
        """The pictures of its splits; None if an earlier version made the run, which did not keep them."""
        with tempfile.TemporaryDirectory() as folder:
            client = MlflowClient(self.uri)
            if members.FILE not in [file.path for file in client.list_artifacts(self.run_id)]:
                return None
            return Membership.read(Path(client.download_artifacts(self.run_id, members.FILE, folder)))

    def splits(self) -> Splits:
        """The images that the run was trained, validated and tested on, read again; logs what has changed since.

        Raises:
            UserError: the data is missing.
        """
        splits, changes = self.find_splits(self.config.data)
        if changes:
            log.warning("run %s: %s", self.run_id[:8], changes)
        return splits

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


def find_run(
    which: str,
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = STORE,
    data: str | None = None,
) -> Run:
    """The finished run that `which` names: `best` by `metric`, `latest`, an id, or the start of an id.

    Args:
        data: the data set of the run, for `best` and `latest`: its name, or the folder of the pictures.

    Raises:
        UserError: there is no such run, or more than one; or `best` or `latest` could be of several data sets.
    """
    advice = "train one: python train.py data=digits"
    client = store.connect_existing(uri, advice)
    known = store.experiment_ids(client)
    if experiment is not None and experiment not in known:
        raise UserError(f"--experiment {experiment}: there is no such MLflow experiment; there are {', '.join(known)}")
    places = [known[experiment]] if experiment else list(known.values())
    latest = client.search_runs(places, FINISHED_RUNS, order_by=["start_time DESC"], max_results=5)
    if not latest:
        raise UserError(f"there is no finished run yet; {advice}")
    if which not in ("best", "latest"):
        return _with_id(client, places, which, latest)
    if which == "latest" and data is None:

        def search(condition: str) -> Sequence[Run]:
            return client.search_runs(places, f"{FINISHED_RUNS} and {condition}", max_results=1)

        if all_have_that_of(latest[0], search):
            return latest[0]
    runs = of_one_data_set(store.search_runs(client, places, FINISHED_RUNS), which, data, known)
    return best_run(runs, metric) if which == "best" else runs[0]


def _with_id(client: MlflowClient, places: list[str], start: str, latest: Sequence[Run]) -> Run:
    """The only finished run whose id, or whose fingerprint, which ends its name, has this start."""
    keys = ["attributes.run_id", f"tags.{store.TAG_FINGERPRINT}"][: 1 if len(start) < SHOWN_DIGITS else 2]
    if not re.fullmatch("[0-9a-f]+", start):  # an id contains none of MLflow's wildcards or quotation marks
        keys = []
    conditions = (f"{FINISHED_RUNS} and {key} LIKE '{start}%'" for key in keys)
    found = (client.search_runs(places, one, order_by=["start_time DESC"], max_results=5) for one in conditions)
    fitting: Sequence[Run] = next(filter(None, found), [])
    if len({run.data.tags[store.TAG_FINGERPRINT] for run in fitting}) == 1:  # runs of one fingerprint computed the same
        return fitting[0]
    there = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in fitting or latest)
    problem = "more than one run has an id with this start" if fitting else "no finished run has an id with this start"
    raise UserError(f"--run {start}: {problem}; {'these' if fitting else 'the latest'} are {there}")


def load_run(
    which: str = "latest",
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = STORE,
    data: str | None = None,
) -> FinishedRun:
    """Load the run that `find_run` returns.

    Raises:
        UserError: there is no such run, or its files are missing.
    """
    uri = store.resolve(uri)
    run = find_run(which, experiment, metric, uri, data)
    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    metadata, program = read_model(uri, experiment_id, run_id)
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = store.connect(uri).download_artifacts(run_id, "config.yaml", folder)
        except (OSError, MlflowException) as error:
            raise UserError(f"run {run_id}: its files are missing ({error})") from None
        settings = Path(file).read_text(encoding="utf-8")
    config = with_defaults(yaml.safe_load(settings))
    classes = tuple(metadata["classes"])
    model, difference = rebuilt(config, len(classes), program, metadata.get("sources"))
    if difference:
        log.warning("run %s: %s: its logged model is used", run_id[:8], difference)
    metrics = dict(run.data.metrics)
    return FinishedRun(run_id, run.info.run_name, experiment_id, uri, config, classes, model, metrics)


def read_artifact(run: FinishedRun, name: str) -> str:
    """The text of one of a run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(MlflowClient(run.uri).download_artifacts(run.run_id, name, folder))
        return file.read_text(encoding="utf-8")
