"""Evaluation of a finished run on any data: with the same report as a run, logged in MLflow as a child of that run."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.config import DataSettings, UserError
from experiments.config.composition import with_changes
from experiments.config.loading import compose_config
from experiments.config.splits import ALL, SPLITS
from experiments.config.wording import counted, named
from experiments.data import Images, load_all, load_splits
from experiments.reports import report
from experiments.reports.content import Content
from experiments.runs import evaluations, provenance
from experiments.runs.finished import FinishedRun
from experiments.runs.logged_model import layers_of
from experiments.training.calibration import Calibration, probabilities
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


def evaluate_run(
    run: FinishedRun, data: str | None, overrides: Sequence[str], split: str | None, search: Sequence[str] = ()
) -> RunEvaluation:
    """Evaluate a finished run on a split of some data, and log the report.

    Args:
        data: name of a data source; by default, the run's own data.
        overrides: keys of the data to change, such as data.root=...
        split: train, validation, test or all; by default, test of the run's own data, and all of other data. The
            metrics are named by it, and test/... for all.
        search: the override of hydra.searchpath, for a data source of the user's own.

    Raises:
        UserError: the data cannot be read, or has a class that the network does not know.
    """
    subject = find_subject(run, data, overrides, split, search)
    identity = hashlib.sha256(repr((run.run_id, subject.split, subject.images.digest)).encode()).hexdigest()
    with (
        evaluations.evaluation(
            run, subject.name, subject.described, identity, subject.uses_test_set, again=True
        ) as logged,
        tempfile.TemporaryDirectory() as folder,
    ):
        content = evaluated(subject, logged.number)
        metrics = content.evaluation.metrics(subject.metric_group, run.classes)
        metrics |= content.calibration.metrics(f"{subject.metric_group}/") if content.calibration else {}
        report.write(Path(folder), content)
        logged.finish(metrics, Path(folder))
    url = evaluations.how_to_open(run.uri, logged.run_id)
    return RunEvaluation(logged.run_id, content.name, content.evaluation, metrics, run.classes, url, subject.warning)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A finished run and the images that it is evaluated on.

    Attributes:
        uses_test_set: an image of the run's own test set is among them.
        warning: why the numbers are not those of a test; usually empty.
    """

    run: FinishedRun
    settings: DataSettings
    split: str
    images: Images
    uses_test_set: bool
    warning: str

    @property
    def metric_group(self) -> str:
        """What the names of the metrics begin with."""
        return "test" if self.split == ALL else self.split

    @property
    def name(self) -> str:
        return f"{self.run.name} on {self.settings.title} ({self.split})"

    @property
    def described(self) -> dict[str, Any]:
        """The settings of the data, and the split, for MLflow."""
        config = dataclasses.replace(self.run.config, data=self.settings)
        return {**config.to_dict()["data"], "evaluated_split": self.split}


def find_subject(
    run: FinishedRun, data: str | None, overrides: Sequence[str], split: str | None, search: Sequence[str] = ()
) -> Subject:
    """The images that `evaluate_run` evaluates, with the same arguments."""
    settings = _data_settings(run, data, overrides, search)
    split = split or (ALL if data else "test")
    images, changes = _load_images(run, settings, data, split)
    warning = " ".join(filter(None, [_caution(run, settings, images, split), changes]))
    return Subject(run, settings, split, images, _uses_test_set(run, settings, images, data, split), warning)


def evaluated(subject: Subject, number: int) -> Content:
    """The evaluation as content of a report; `number`: of those on the run's own test set, 0 if it is on other images."""
    run, images, split = subject.run, subject.images, subject.split
    logits = run.logits(images)
    protocol = f"Run {run.run_id} on {split} of {subject.settings.title}: {counted(len(images), 'image')}."
    if number:
        protocol = f"This is evaluation number {number} of run {run.run_id} on its test set."
    return Content(
        name=subject.name,
        command=shlex.join(["python", *sys.argv]),
        config=dataclasses.replace(run.config, data=subject.settings),
        split="overall" if split == ALL else split,
        images=images,
        probabilities=probabilities(logits, run.model.temperature),
        evaluation=score(logits, torch.tensor(images.labels)),
        class_counts={split: images.class_counts},
        layers=layers_of(run.model, images.shape[1:]),
        protocol=f"{protocol} {subject.warning}".strip(),
        environment=provenance.environment(torch.device("cpu"), images.digest),
        calibration=Calibration(run.model.temperature, logits, images.labels) if run.model.temperature != 1 else None,
    )


def _data_settings(run: FinishedRun, data: str | None, overrides: Sequence[str], search: Sequence[str]) -> DataSettings:
    """The settings of the run's own data, or those of another source, with the overrides."""
    if others := [text for text in overrides if not text.lstrip("+~").startswith("data.")]:
        raise UserError(f"{', '.join(others)}: only keys of the data can be set here, such as data.root=...")
    if data is None:
        run.check_source()
        settings = with_changes(run.config, overrides).data
    else:
        own = {"data.image_size": run.image_size, "data.fit": run.config.data.fit}
        same = [f"{key}={value}" for key, value in own.items() if not any(key in text for text in overrides)]
        settings = compose_config([*search, f"data={data}", *same, *overrides]).data
    if settings.image_size != run.image_size:
        raise UserError(
            f"data.image_size={settings.image_size}: must be {run.image_size}, the image size of this network"
        )
    return settings


def _load_images(run: FinishedRun, settings: DataSettings, data: str | None, split: str) -> tuple[Images, str]:
    """The images of a split, or of all splits, and what is to be said about them.

    Those of a split of the run's own data are found by their pixels. Other data is split as a run would do it, but without
    the images that this run was trained or validated on.
    """
    if split == ALL:
        return run.with_its_classes(load_all(settings)), ""
    if data is None:
        splits, changes = run.find_splits(settings)
        images = splits.parts()[split]
        if not len(images):
            raise UserError(f"none of the run's {split} images is left; {changes}")
        return images, changes and f"Run {run.run_id[:8]}: {changes}."
    images, note = load_splits(settings).parts()[split], ""
    if run.membership and split != "train":
        used = run.membership.in_split(images, *SPLITS[: SPLITS.index(split)])
        if used.all():
            raise UserError(
                f"the run was trained or validated on all {len(images):,} {split} images of {settings.title}"
            )
        if used.any():
            names = named(images[used].names)
            note = f"{used.sum():,} {split} images are left out: the run was trained or validated on them ({names})."
        images = images[~used]
    return run.with_its_classes(images), note


def _caution(run: FinishedRun, settings: DataSettings, images: Images, split: str) -> str:
    """That the network was trained with some of these images; empty if it was not, or if that was asked for."""
    if split != ALL:
        return ""
    advice = "--split test evaluates it only on others."
    if run.membership is None:
        own = settings == run.config.data
        return f"The network was trained with some of these images; {advice}" if own else ""
    trained, validated = (run.membership.in_split(images, name).sum() for name in ("train", "validation"))
    if not trained + validated:
        return ""
    return f"The network was trained with {trained:,} of these {len(images):,} images, and validated on {validated:,}; {advice}"


def _uses_test_set(run: FinishedRun, settings: DataSettings, images: Images, data: str | None, split: str) -> bool:
    """Whether an image of the run's own test set is evaluated."""
    if data is None and split not in ("test", ALL):
        return False
    if run.membership is None:
        return settings == run.config.data and split in ("test", ALL)
    return bool(run.membership.in_split(images, "test").any())
