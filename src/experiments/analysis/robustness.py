"""Evaluation of a finished run on corrupted images: logged in MLflow as one child run, which the same command continues."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from experiments.analysis import corruptions, strengths
from experiments.analysis.corruptions import corrupt
from experiments.analysis.evaluate_run import RunEvaluation, Subject, evaluated
from experiments.analysis.strengths import CORRUPTIONS, STRENGTHS
from experiments.config.wording import counted
from experiments.data import Images
from experiments.data.on_the_fly import workers
from experiments.data.prefetch import prefetch
from experiments.reports import report
from experiments.reports.content import Content
from experiments.reports.corruption_log import Log
from experiments.reports.corruptions import Corrupted, Row
from experiments.runs import evaluations
from experiments.runs.evaluations import Logged
from experiments.runs.finished import FinishedRun
from experiments.training.evaluation import batch_size

BATCHES = 4  # of the network, that a thread corrupts at a time


def evaluate_corruptions(subject: Subject, names: Sequence[str], limit: int | None = None) -> RunEvaluation:
    """Evaluate a finished run on its images, and on the same images with each corruption and strength.

    All of that counts as one evaluation on the run's own test set. What an interrupted command has logged is not computed
    again, and nothing is computed if the same evaluation is finished.

    Args:
        names: of the corruptions, see `strengths.chosen`.
        limit: the number of images, drawn from all; the same ones every time.
    """
    if limit is not None and limit < len(subject.images):
        drawn = np.sort(np.random.default_rng(0).permutation(len(subject.images))[:limit])
        few = f"Only {limit:,} of the {counted(len(subject.images), 'image')} are evaluated, drawn at random."
        warning = f"{subject.warning} {few}".strip()
        subject = dataclasses.replace(subject, images=subject.images[drawn], warning=warning)
    run, images, group = subject.run, subject.images, subject.metric_group
    described = {**subject.described, "evaluated_images": len(images), "corruptions": ", ".join(names)}
    name = f"{subject.name}, corrupted"
    with (
        evaluations.evaluation(run, name, described, _identity(subject, names), subject.uses_test_set) as logged,
        Log(len(names) * len(STRENGTHS) * len(images)) as log,
    ):
        content = dataclasses.replace(evaluated(subject, logged.number), name=name)
        log.start(content.evaluation.accuracy, STRENGTHS)
        accuracy = dict(_measured(run, images, names, group, logged, log))
        examples = {name: _example(images, name) for name in names}
        groups = {name: CORRUPTIONS[name].group for name in names}
        corrupted = Corrupted(content.evaluation.accuracy, accuracy, groups, examples)
        metrics = {f"{group}/corrupted_accuracy": corrupted.mean, f"{group}/corrupted_ratio": corrupted.ratio}
        metrics |= content.evaluation.metrics(group, run.classes)
        if not logged.finished:
            _finish(logged, dataclasses.replace(content, corrupted=corrupted), metrics)
    url = evaluations.how_to_open(run.uri, logged.run_id)
    return RunEvaluation(logged.run_id, name, content.evaluation, metrics, run.classes, url, subject.warning)


def _identity(subject: Subject, names: Sequence[str]) -> str:
    """A digest of what determines the result: the run, the images, the corruptions and their code."""
    sources = list(map(inspect.getsource, (corruptions, strengths)))
    determined = (subject.run.run_id, subject.split, subject.images.digest, tuple(names), np.__version__, sources)
    return hashlib.sha256(repr(determined).encode()).hexdigest()


def _measured(
    run: FinishedRun, images: Images, names: Sequence[str], group: str, logged: Logged, log: Log
) -> Iterator[tuple[str, Row]]:
    """(corruption, accuracy at each strength), measured now or logged before."""
    for name in names:
        metric = f"{group}/corrupted/{name}"
        accuracies = logged.values(metric)
        if accuracies:
            log.advance(name, len(STRENGTHS) * len(images))
        else:
            accuracies = _accuracies(run, images, name, log)
            logged.log(metric, accuracies)
        log.row(name, accuracies)
        yield name, accuracies


def _accuracies(run: FinishedRun, images: Images, name: str, log: Log) -> list[float]:
    """The accuracy at each strength. Threads corrupt the next images while the network computes."""
    size, threads = BATCHES * batch_size(images.shape), workers(run.config.data.workers)
    right = np.zeros(len(STRENGTHS), dtype=int)

    def prepared(rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        pixels = images.take(rows)
        return images.labels[rows], [corrupt(pixels, name, strength) for strength in STRENGTHS]

    rows = np.array_split(np.arange(len(images)), range(size, len(images), size))
    for labels, versions in prefetch(prepared, rows, threads, threads):
        for index, pixels in enumerate(versions):
            right[index] += int((run.logits(pixels).argmax(dim=1) == torch.tensor(labels)).sum())
            log.advance(name, len(labels))
    return (right / len(images)).tolist()


def _example(images: Images, name: str) -> np.ndarray:
    """The first image without a corruption, and at each strength."""
    first = images[:1].pixels
    return np.concatenate([first, *(corrupt(first, name, strength) for strength in STRENGTHS)])


def _finish(logged: Logged, content: Content, metrics: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report.write(Path(folder), content)
        logged.finish(metrics, Path(folder))
