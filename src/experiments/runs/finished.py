"""A finished run brought back from MLflow: its configuration, its classes, its network, its data.

trained = load("best")                  # or "latest", or a run's id, or the start of one
trained.probabilities(trained.splits().test.pixels)
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow.artifacts
import numpy as np
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from experiments.config import Config, UserError
from experiments.config.composition import with_defaults
from experiments.config.defaults import default
from experiments.config.metrics import DEFAULT_FINAL, higher_is_better
from experiments.data import Images, Splits, load_splits
from experiments.data.batches import Batches
from experiments.models import build, classifier
from experiments.runs import store
from experiments.training import devices, evaluation

STORE: str = default("tracking.uri")


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left.

    Attributes:
        model: on the CPU, in evaluation mode; takes raw uint8 pictures (batch, 3, H, W), gives logits.
        metrics: the final ones, as in MLflow.
    """

    run_id: str
    name: str
    experiment_id: str
    uri: str
    config: Config
    classes: tuple[str, ...]
    model: classifier.Classifier
    metrics: dict[str, float]

    @property
    def image_size(self) -> int:
        """Pixels a side of the pictures that the network takes."""
        return self.config.data.image_size

    def logits(self, pixels: np.ndarray) -> torch.Tensor:
        """Logits, float32 (N, classes), of raw pictures, uint8 (N, 3, H, W), to the last bit as in the run.

        With the run's `evaluation.tta` they are means over several views, as those that its accuracy was measured by.
        """
        images = Images(pixels, np.zeros(len(pixels), dtype=np.int64), self.classes)
        batches = Batches(images, evaluation.batch_size(pixels.shape), torch.device("cpu"))
        return evaluation.predict(self.model, batches, devices.autocast(self.config, "cpu"), self.config.evaluation.tta)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (N, classes), of raw pictures, uint8 (N, 3, H, W)."""
        return self.logits(pixels).softmax(dim=1).numpy()

    @property
    def examined(self) -> Literal["test", "validation"]:
        """What may be looked at: the test set of a run that was tested, else (the points of a multirun) the validation set."""
        return "test" if "test/loss" in self.metrics else "validation"

    def splits(self) -> Splits:
        """The images that it was trained, validated and tested on, read anew.

        Raises:
            UserError: where the data is not there any more.
        """
        return load_splits(self.config.data, self.config.seed)


def find_run(which: str, experiment: str | None = None, metric: str = DEFAULT_FINAL, uri: str = STORE) -> Run:
    """The finished run that `which` means: `best` by `metric`, `latest`, an id, or the start of one.

    Raises:
        UserError: where there is no such run, or more than one.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(
            f"{uri.removeprefix('sqlite:///')}: there are no runs here; train one: python train.py data=digits"
        )
    client = store.connect(uri)
    known = {found.name: found.experiment_id for found in client.search_experiments()}
    if experiment is not None and experiment not in known:
        raise UserError(f"--experiment {experiment}: there is none of that name; there are {', '.join(known)}")
    places = [known[experiment]] if experiment else list(known.values())
    order = (
        f"metrics.`{metric}` {'DESC' if higher_is_better(metric) else 'ASC'}" if which == "best" else "start_time DESC"
    )
    # Only training runs have a fingerprint: evaluations of them, and parents of multiruns, have no model.
    runs = client.search_runs(
        places, "status = 'FINISHED' and tags.fingerprint != ''", order_by=[order], max_results=1000
    )
    if not runs:
        raise UserError("there is no finished run yet; train one: python train.py data=digits")
    if which == "latest":
        return runs[0]
    if which == "best":
        if metric not in runs[0].data.metrics:
            raise UserError(
                f"--metric {metric}: no finished run has it; there are {', '.join(sorted(runs[0].data.metrics))}"
            )
        return runs[0]
    fitting = [run for run in runs if run.info.run_id.startswith(which)]
    if len(fitting) != 1:
        there = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in (fitting or runs)[:5])
        raise UserError(
            f"--run {which}: {'more than one run starts so' if fitting else 'no finished run starts so'}: {there}"
        )
    return fitting[0]


def load_run(
    which: str = "latest", experiment: str | None = None, metric: str = DEFAULT_FINAL, uri: str = STORE
) -> FinishedRun:
    """Bring back the run that `find` gives.

    Raises:
        UserError: where there is no such run, or its files are gone.
    """
    uri = store.resolve(uri)
    run = find_run(which, experiment, metric, uri)
    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    client = store.connect(uri)
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    if not found:
        raise UserError(f"run {run_id} has no model")
    place = found[0].artifact_location
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = Path(client.download_artifacts(run_id, "config.yaml", folder)).read_text(encoding="utf-8")
            described, exported = (
                mlflow.artifacts.download_artifacts(artifact_uri=f"{place}/{name}", dst_path=folder, tracking_uri=uri)
                for name in ("MLmodel", "data/model.pt2")
            )
        except (OSError, MlflowException) as error:
            raise UserError(f"run {run_id}: its files are gone ({error})") from None
        classes = tuple(yaml.safe_load(Path(described).read_text(encoding="utf-8"))["metadata"]["classes"])
        weights = torch.export.load(exported).state_dict
    config = with_defaults(yaml.safe_load(settings))
    model = build.build(config, len(classes))
    model.load_state_dict(weights)
    metrics = dict(run.data.metrics)
    return FinishedRun(run_id, run.info.run_name, experiment_id, uri, config, classes, model.eval(), metrics)


def read_artifact(trained: FinishedRun, name: str) -> str:
    """The text of one of a run's files."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(MlflowClient(trained.uri).download_artifacts(trained.run_id, name, folder)).read_text(
            encoding="utf-8"
        )
