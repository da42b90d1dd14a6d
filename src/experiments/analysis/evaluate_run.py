"""Evaluation of a finished run on any data: with the same report as a run, logged in MLflow as a child of that run."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from experiments.config import DataSettings, UserError
from experiments.config.composition import with_defaults
from experiments.config.loading import compose_config
from experiments.config.splits import ALL
from experiments.data import Images, load_all, load_splits
from experiments.models.classifier import list_layers
from experiments.reports import report
from experiments.reports.content import Content
from experiments.runs import evaluations, provenance, store
from experiments.runs.finished import FinishedRun
from experiments.training.evaluation import Evaluation, score


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """The evaluation of a finished run on some images, and where its report is.

    Attributes:
        run_id: MLflow's id of the evaluation, a child run of the evaluated one.
        metrics: loss, accuracy and F1, by their names in MLflow.
        url: command or address that shows it in MLflow.
        warning: why the numbers are not those of a test; usually empty.
    """

    run_id: str
    name: str
    evaluation: Evaluation
    metrics: dict[str, float]
    classes: tuple[str, ...]
    url: str
    warning: str


def evaluate_run(run: FinishedRun, data: str | None, overrides: Sequence[str], split: str | None) -> RunEvaluation:
    """Evaluate a finished run on a split of some data, and log the report.

    Args:
        data: name of a data source; by default, the run's own data.
        overrides: keys of the data to change, such as data.root=...
        split: train, validation, test or all; by default, test of the run's own data, and all of other data. The
            metrics are named by it, and test/... for all.

    Raises:
        UserError: the data cannot be read, or has a class that the network does not know.
    """
    settings = _data_settings(run, data, overrides)
    own_data, split = settings == run.config.data, split or (ALL if data else "test")
    images = _with_classes_of(run, _load_images(settings, run.config.seed, split))
    logits = run.logits(images.pixels)
    evaluation = score(logits, torch.tensor(images.labels))
    warning, protocol = "", f"Run {run.run_id} on {split} of {settings.name}: {len(images):,} images."
    if own_data and split == ALL:
        warning = "The network was trained with some of these images; --split test evaluates it only on others."
    if own_data and split in ("test", ALL):
        count = evaluations.count_test_evaluation(run)
        protocol = f"This is evaluation number {count} of run {run.run_id} on its test set. {warning}".strip()
    content = Content(
        name=f"{run.name} on {settings.name} ({split})",
        command=shlex.join(["python", *sys.argv]),
        config=dataclasses.replace(run.config, data=settings),
        split="overall" if split == ALL else split,
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        evaluation=evaluation,
        class_counts={split: images.class_counts},
        layers=list_layers(run.model, images.shape[1:]),
        protocol=protocol,
        environment=provenance.environment(torch.device("cpu"), images.digest),
    )
    return _report(run, content, split, warning)


def _report(run: FinishedRun, content: Content, split: str, warning: str) -> RunEvaluation:
    """Log the report of an evaluation as a child run."""
    metrics = content.evaluation.metrics("test" if split == ALL else split, run.classes)
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), content)
        described = {**content.config.to_dict()["data"], "evaluated_split": split}
        run_id = evaluations.log_evaluation(run, content.name, described, metrics, Path(folder))
    url = store.how_to_open(run.uri, run.experiment_id)
    return RunEvaluation(run_id, content.name, content.evaluation, metrics, run.classes, url, warning)


def _data_settings(run: FinishedRun, data: str | None, overrides: Sequence[str]) -> DataSettings:
    """The settings of the run's own data, or those of another source, with the overrides."""
    if others := [text for text in overrides if not text.lstrip("+~").startswith("data.")]:
        raise UserError(f"{', '.join(others)}: only keys of the data can be set here, such as data.root=...")
    if data is None:
        changed = OmegaConf.merge(run.config.to_dict(), OmegaConf.from_dotlist(list(overrides)))
        settings = with_defaults(OmegaConf.to_container(changed)).data  # type: ignore[arg-type]
    else:
        size = [] if any("data.image_size" in text for text in overrides) else [f"data.image_size={run.image_size}"]
        settings = compose_config([f"data={data}", *size, *overrides]).data
    if settings.image_size != run.image_size:
        raise UserError(
            f"data.image_size={settings.image_size}: must be {run.image_size}, the image size of this network"
        )
    return settings


def _load_images(settings: DataSettings, seed: int, split: str) -> Images:
    """The images of a split, or of all splits."""
    return load_all(settings, seed) if split == ALL else load_splits(settings, seed).parts()[split]


def _with_classes_of(run: FinishedRun, images: Images) -> Images:
    """The same images with the labels of the network's classes, matched by name."""
    present = [images.classes[label] for label in np.flatnonzero(images.class_counts)]
    unknown = [name for name in present if name not in run.classes]
    if unknown:
        raise UserError(f"this network does not know {', '.join(unknown)}; it knows {', '.join(run.classes)}")
    place = np.array([run.classes.index(name) if name in present else -1 for name in images.classes])
    return Images(images.source, place[images.labels], run.classes, images.indices)
