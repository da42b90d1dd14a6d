"""A finished model on any data: the same report, kept in MLflow as a child of the run that it evaluates."""

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
from experiments.data import Images, load_all, load_splits
from experiments.models.classifier import list_layers
from experiments.reports import report
from experiments.reports.content import Content
from experiments.runs import evaluations, provenance, store
from experiments.runs.finished import FinishedRun
from experiments.training.evaluation import Evaluation, score


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """What a model was worth on some images, and where the report lies."""

    run_id: str
    name: str
    evaluation: Evaluation
    metrics: dict[str, float]
    classes: tuple[str, ...]
    url: str  # how to look at it
    caution: str  # why the numbers are less than a test; usually empty


def evaluate_run(trained: FinishedRun, data: str | None, overrides: Sequence[str], split: str | None) -> RunEvaluation:
    """Evaluate a finished run on `split` (train, validation, test or all) of the data that name and overrides configure.

    Without `data`, on the test set of its own; with `data`, on all of that. The metrics are called test/..., or
    train/... and validation/... where that is what they are of.

    Raises:
        UserError: where the data cannot be read, or has a class that the network does not know.
    """
    chosen = _configured(trained, data, overrides)
    split = split or ("all" if data else "test")
    images = _with_classes_of(trained, _part(chosen, trained.config.seed, split))
    logits = trained.logits(images.pixels)
    evaluation = score(logits, torch.tensor(images.labels))
    own = chosen == trained.config.data
    looks = evaluations.count_test_evaluation(trained) if own and split in ("test", "all") else 0
    caution = (
        "The network was trained with some of these pictures; --split test has only others."
        if own and split == "all"
        else ""
    )
    name = f"{trained.name} on {chosen.name} ({split})"
    content = Content(
        name=name,
        command=shlex.join(["python", *sys.argv]),
        config=dataclasses.replace(trained.config, data=chosen),
        split=split if split != "all" else "overall",
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        evaluation=evaluation,
        class_counts={split: images.class_counts},
        layers=list_layers(trained.model, images.shape[1:]),
        protocol=f"This is look number {looks} at the test set of run {trained.run_id}. {caution}".strip()
        if looks
        else f"Run {trained.run_id} on {split} of {chosen.name}: {len(images):,} pictures.",
        environment=provenance.environment(torch.device("cpu"), images.digest),
    )
    metrics = evaluation.metrics("test" if split == "all" else split, trained.classes)
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), content)
        settings = {**content.config.to_dict()["data"], "evaluated_split": split}
        run_id = evaluations.log_evaluation(trained, name, settings, metrics, Path(folder))
    url = store.how_to_open(trained.uri, trained.experiment_id, run_id)
    return RunEvaluation(run_id, name, evaluation, metrics, trained.classes, url, caution)


def _configured(trained: FinishedRun, data: str | None, overrides: Sequence[str]) -> DataSettings:
    """The data of the run, or those named, with what the overrides change of them."""
    if strange := [text for text in overrides if not text.lstrip("+~").startswith("data.")]:
        raise UserError(f"{', '.join(strange)}: only keys of the data can be set here, such as data.root=...")
    if data is None:
        changed = OmegaConf.merge(trained.config.to_dict(), OmegaConf.from_dotlist(list(overrides)))
        chosen = with_defaults(OmegaConf.to_container(changed)).data  # type: ignore[arg-type]
    else:
        size = [] if any("data.image_size" in text for text in overrides) else [f"data.image_size={trained.image_size}"]
        chosen = compose_config([f"data={data}", *size, *overrides]).data
    if chosen.image_size != trained.image_size:
        raise UserError(f"data.image_size={chosen.image_size}: this network takes {trained.image_size}")
    return chosen


def _part(data: DataSettings, seed: int, split: str) -> Images:
    return load_all(data, seed) if split == "all" else load_splits(data, seed).parts()[split]


def _with_classes_of(trained: FinishedRun, images: Images) -> Images:
    """The same images with the labels of the network's classes, matched by name."""
    present = [images.classes[label] for label in np.flatnonzero(images.class_counts)]
    unknown = [name for name in present if name not in trained.classes]
    if unknown:
        raise UserError(f"this network does not know {', '.join(unknown)}; it knows {', '.join(trained.classes)}")
    place = np.array([trained.classes.index(name) if name in present else -1 for name in images.classes])
    return Images(images.source, place[images.labels], trained.classes, images.indices)
