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

from experiments import evaluation, models, page, report, store, tracking
from experiments.composition import complete
from experiments.composition import load as compose
from experiments.config import Data, ImageFolder, UserError
from experiments.data import Images
from experiments.data import load as load_data
from experiments.data.folder import load_all as load_folder
from experiments.data.images import joined
from experiments.runs import Trained


@dataclasses.dataclass(frozen=True)
class Retest:
    """What a model was worth on some images, and where the report lies."""

    run_id: str
    name: str
    test: evaluation.Evaluation
    metrics: dict[str, float]
    classes: tuple[str, ...]
    hint: str  # how to look at it
    caution: str  # why the numbers are less than a test; usually empty


def retest(trained: Trained, data: str | None, overrides: Sequence[str], split: str | None) -> Retest:
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
    test = evaluation.score(logits, torch.tensor(images.labels))
    own = chosen == trained.config.data
    looks = tracking.count_test_evaluation(trained) if own and split in ("test", "all") else 0
    caution = (
        "The network was trained with some of these pictures; --split test has only others."
        if own and split == "all"
        else ""
    )
    name = f"{trained.name} on {chosen.name} ({split})"
    shape = (3, trained.image_size, trained.image_size)
    content = page.Content(
        name=name,
        command=shlex.join(["python", *sys.argv]),
        config=dataclasses.replace(trained.config, data=chosen),
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        test=test,
        history=[],
        best_epoch=0,
        balance={split: images.class_counts},
        split=split if split != "all" else "overall",
        layers=models.layers(trained.model, shape),
        statement=f"This is look number {looks} at the test set of run {trained.run_id}. {caution}".strip()
        if looks
        else f"Run {trained.run_id} on {split} of {chosen.name}: {len(images):,} pictures.",
        environment=report.environment("cpu", torch.get_num_threads(), images.digest),
    )
    metrics = evaluation.test_metrics(test, trained.classes)
    if split in ("train", "validation"):
        metrics = {name.replace("test/", f"{split}/", 1): value for name, value in metrics.items()}
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), content)
        settings = {**dataclasses.asdict(chosen), "evaluated_split": split}
        run_id = tracking.log_evaluation(trained, name, settings, metrics, Path(folder))
    hint = store.how_to_look(trained.uri, trained.experiment_id, run_id)
    return Retest(run_id, name, test, metrics, trained.classes, hint, caution)


def _configured(trained: Trained, data: str | None, overrides: Sequence[str]) -> Data:
    """The data of the run, or those named, with what the overrides change of them."""
    if strange := [text for text in overrides if not text.lstrip("+~").startswith("data.")]:
        raise UserError(f"{', '.join(strange)}: only keys of the data can be set here, such as data.root=...")
    if data is None:
        changed = OmegaConf.merge(trained.config.to_dict(), OmegaConf.from_dotlist(list(overrides)))
        chosen = complete(OmegaConf.to_container(changed)).data  # type: ignore[arg-type]
    else:
        size = [] if any("data.image_size" in text for text in overrides) else [f"data.image_size={trained.image_size}"]
        chosen = compose([f"data={data}", *size, *overrides]).data
    if chosen.image_size != trained.image_size:
        raise UserError(f"data.image_size={chosen.image_size}: this network takes {trained.image_size}")
    return chosen


def _part(data: Data, seed: int, split: str) -> Images:
    if split == "all" and isinstance(data, ImageFolder):
        return load_folder(data)  # nothing has to be split, so any number of classes and pictures will do
    splits = load_data(data, seed)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if split != "all":
        return parts[split]
    return joined(list(parts.values()))


def _with_classes_of(trained: Trained, images: Images) -> Images:
    """The same images with the labels of the network's classes, matched by name."""
    present = [images.classes[label] for label in np.flatnonzero(images.class_counts)]
    unknown = [name for name in present if name not in trained.classes]
    if unknown:
        raise UserError(f"this network does not know {', '.join(unknown)}; it knows {', '.join(trained.classes)}")
    place = np.array([trained.classes.index(name) if name in present else -1 for name in images.classes])
    return Images(images.source, place[images.labels], trained.classes, images.rows)
