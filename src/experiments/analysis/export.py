"""A finished run as a file for other programs: converted, compared with the run, and only then written.

exported = export(load_run("best"), "onnx", Path("tiger.onnx"))
print(exported.figures, exported.program)
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experiments.analysis.formats import FORMATS, TOLERANCE, default_output
from experiments.analysis.programs import program
from experiments.config.errors import RunFailed
from experiments.config.metrics import final_value
from experiments.config.wording import counted, percent
from experiments.data import Images
from experiments.data.batches import Batches
from experiments.runs import portable
from experiments.runs.finished import FinishedRun
from experiments.training.evaluation import batch_size, score

CALIBRATION = 256  # training pictures that the ranges of 8-bit integers are taken from
ROUNDING = 1e-4  # of a probability, by which floats that are added in another order may differ
SECONDS = 0.5  # of calls, whose median is a timing
TOGETHER = 32  # pictures per batch of the second timing; the first is of single pictures


@dataclass(frozen=True)
class Side:
    """What was measured of the run's network, or of the file; milliseconds per picture."""

    accuracy: float
    alone: float
    together: float


@dataclass(frozen=True)
class Exported:
    """An exported file, and how it compares with the run on the validation pictures.

    Attributes:
        difference: the largest difference of a class probability.
        note: how the run itself predicts, if not with 32-bit floats and one view of a picture.
        program: a Python program that uses the file without this package.
    """

    path: Path
    bytes: int
    pictures: int
    run: Side
    file: Side
    difference: float
    note: str
    program: str

    @property
    def figures(self) -> str:
        """The file and all figures."""
        return f"{self.path}, {self.bytes / 1e6:.2f} MB\n\n{self.table}"

    @property
    def table(self) -> str:
        """The comparison with the run."""
        rows = (
            ("accuracy", self.run.accuracy, self.file.accuracy, counted(self.pictures, "validation picture")),
            ("milliseconds per picture", self.run.alone, self.file.alone, "one at a time"),
            ("milliseconds per picture", self.run.together, self.file.together, f"{TOGETHER} at a time"),
        )
        table = [f"{name:<24}  {before:>8.4g}  {after:>8.4g}  {what}" for name, before, after, what in rows]
        head = f"{'':<24}  {'run':>8}  {'file':>8}"
        last = f"largest difference of a probability: {self.difference:.2g}"
        return "\n".join([head, *table, last, *filter(None, [self.note])])


def export(run: FinishedRun, form: str, output: Path | None, tolerance: float | None = None) -> Exported:
    """Write the network of a run in one of `FORMATS`, after it was compared with the run.

    Args:
        output: the file; by default one in the outputs folder, named by the run. It is replaced if it exists.
        tolerance: the accuracy on the validation pictures that the file may lose, as a share of them; by default
            `formats.TOLERANCE`, or one picture if that is more.

    Raises:
        UserError: the data is missing, or ONNX has no operator for a part of the network.
        RunFailed: the file loses more, or computes other probabilities though it has 32-bit floats; nothing is written.
    """
    splits = run.splits()
    fit = run.config.data.fit
    path = output or default_output(form, run.run_id)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / f"network{FORMATS[form][0]}"
        network = _convert(run, form, splits.train, _about(run, fit), part)
        (before, after), difference = _compared(_own(run), network, splits.validation)
        exported = Exported(
            path, part.stat().st_size, len(splits.validation), before, after, difference, _note(run), program(path, fit)
        )
        check(exported, form, tolerance)
        portable.publish(part, path)
    return exported


def _about(run: FinishedRun, fit: str) -> dict[str, str]:
    """The metadata of the file: what a program must know to use it."""
    return {
        "classes": json.dumps(run.classes, ensure_ascii=False),
        "image_size": str(run.image_size),
        "fit": fit,
        "input": "uint8 (N, 3, image_size, image_size), RGB, not normalised",
        "output": "float32 (N, classes), logits: a softmax gives the probabilities",
        "run": run.run_id,
    }


def _convert(run: FinishedRun, form: str, train: Images, about: dict[str, str], path: Path) -> portable.Network:
    """Write the file, and open it as another program would."""
    exported = run.program
    if form == "pt2":
        portable.write_pt2(exported, about, path)
        return portable.open_pt2(path)
    if form == "onnx":
        portable.write_onnx(exported, about, path)
    else:
        floats = path.with_suffix(".floats")
        portable.write_onnx(exported, about, floats)
        portable.write_int8(floats, _calibration(train), about, path)
    return portable.open_onnx(path)


def _calibration(train: Images) -> Iterator[np.ndarray]:
    """Batches of training pictures, at equal distances in their order, which is often that of the classes."""
    rows = np.linspace(0, len(train) - 1, min(len(train), CALIBRATION)).round().astype(np.int64)
    for together in np.array_split(rows, -(-len(rows) // batch_size(train.shape))):
        yield train.take(together)


def _own(run: FinishedRun) -> portable.Network:
    """The network of the run, in 32-bit floats."""

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = run.model(torch.from_numpy(images)).numpy()
        return logits

    return predict


def _compared(own: portable.Network, network: portable.Network, images: Images) -> tuple[tuple[Side, Side], float]:
    """What was measured of both, and the largest difference of a probability."""
    batches = Batches(images, batch_size(images.shape), torch.device("cpu"))
    pairs = [(own(batch.pixels.numpy()), network(batch.pixels.numpy())) for batch in batches]
    logits = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*pairs)]
    before, after = (values.softmax(dim=1) for values in logits)
    some = np.resize(images[:TOGETHER].pixels, (TOGETHER, *images.shape[1:]))
    sides = [
        Side(score(values, batches.labels).accuracy, _milliseconds(side, some[:1]), _milliseconds(side, some))
        for side, values in zip((own, network), logits)
    ]
    return (sides[0], sides[1]), float((before - after).abs().max())


def _milliseconds(network: portable.Network, images: np.ndarray) -> float:
    """Median time per image of repeated calls."""
    network(images)
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < SECONDS and len(seconds) < 1000):
        start = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / len(images)


def _note(run: FinishedRun) -> str:
    config = run.config
    ways = [f"in {config.precision}"] * (config.precision == "bf16") + [config.evaluation.note]
    how = ", ".join(filter(None, ways))
    accuracy = final_value(run.metrics, "kept/val_accuracy")
    return f"the run itself predicts {how}: its accuracy is {accuracy:.4g}; the file does not" if how else ""


def check(exported: Exported, form: str, tolerance: float | None) -> None:
    """Refuse a file that is worse than `export` allows.

    Raises:
        RunFailed: it is.
    """
    count = exported.pictures
    lost = round((exported.run.accuracy - exported.file.accuracy) * count)  # pictures
    allowed = max(TOLERANCE * count, 1) if tolerance is None else tolerance * count
    problem = ""
    if lost > round(allowed, 6):  # 0.29 * 100 is less than 29
        share = f"{percent(lost / count, 2)} ({lost:,} of {counted(count, 'validation picture')})"
        least = f"--tolerance {math.ceil(1000 * lost / count) / 1000:g} allows it"
        limit = TOLERANCE if tolerance is None else tolerance
        problem = f"the file loses an accuracy of {share}, more than --tolerance {limit:g}; {least}"
    elif form != "onnx-int8" and not exported.difference <= ROUNDING:
        problem = (
            f"the file computes other probabilities, by up to {exported.difference:.2g}; rounding explains {ROUNDING:g}"
        )
    if problem:
        raise RunFailed(f"{exported.table}\n\n--format {form}: {problem}; {exported.path} is not written")
