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

from experiments import evaluation, models, report, tracking
from experiments.composition import load as compose
from experiments.config import Data, UserError
from experiments.data import Images, Splits
from experiments.data import load as load_data
from experiments.runs import Trained


@dataclasses.dataclass(frozen=True)
class Retest:
    """What a model was worth on some images, and where the report lies."""

    run_id: str
    name: str
    test: evaluation.Evaluation
    metrics: dict[str, float]
    classes: tuple[str, ...]


def retest(trained: Trained, data: str | None, overrides: Sequence[str], split: str | None) -> Retest:
    """Evaluate a finished run on `split` (train, validation, test or all) of the data that name and overrides configure.

    Without `data`, on its own test set, which counts as one more look at it. With other data, on all of it.

    Raises:
        UserError: where the data cannot be read, or has a class that the network does not know.
    """
    own = data is None and not overrides
    chosen = trained.config.data if own else _configured(trained, data, overrides)
    split = split or ("test" if own else "all")
    images = _with_classes_of(trained, _part(load_data(chosen, trained.config.seed), split))
    logits = trained.logits(images.pixels)
    test = evaluation.score(logits, torch.from_numpy(images.labels))
    looks = tracking.count_test_evaluation(trained) if own and split == "test" else 0
    name = f"{trained.name} on {chosen.name} ({split})"
    shape = (3, trained.image_size, trained.image_size)
    content = report.Content(
        name=name,
        command=shlex.join(["python", *sys.argv]),
        config=dataclasses.replace(trained.config, data=chosen),
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        test=test,
        history=[],
        best_epoch=0,
        balance={split: images.class_counts},
        layers=models.layers(trained.model, shape),
        statement=f"This is look number {looks} at the test set of run {trained.run_id}."
        if looks
        else f"Run {trained.run_id} on {split} of {chosen.name}: {len(images):,} pictures.",
        environment=report.environment("cpu", torch.get_num_threads(), images.digest),
    )
    metrics = evaluation.test_metrics(test, trained.classes)
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), content)
        settings = {**dataclasses.asdict(chosen), "evaluated_split": split}
        run_id = tracking.log_evaluation(trained, name, settings, metrics, Path(folder))
    return Retest(run_id, name, test, metrics, trained.classes)


def _configured(trained: Trained, data: str | None, overrides: Sequence[str]) -> Data:
    size = [] if any("data.image_size" in text for text in overrides) else [f"data.image_size={trained.image_size}"]
    name = data or trained.config.data.name
    chosen = compose([f"data={name}", *size, *overrides]).data
    if chosen.image_size != trained.image_size:
        raise UserError(f"data.image_size={chosen.image_size}: this network takes {trained.image_size}")
    return chosen


def _part(splits: Splits, split: str) -> Images:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if split != "all":
        return parts[split]
    pixels, labels = (np.concatenate([getattr(part, name) for part in parts.values()]) for name in ("pixels", "labels"))
    return Images(pixels, labels, splits.classes)


def _with_classes_of(trained: Trained, images: Images) -> Images:
    """The same images with the labels of the network's classes, matched by name."""
    present = [images.classes[label] for label in np.flatnonzero(images.class_counts)]
    unknown = [name for name in present if name not in trained.classes]
    if unknown:
        raise UserError(f"this network does not know {', '.join(unknown)}; it knows {', '.join(trained.classes)}")
    place = np.array([trained.classes.index(name) if name in present else -1 for name in images.classes])
    return Images(images.pixels, place[images.labels], trained.classes)
