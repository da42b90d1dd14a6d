"""What a run prints: its configuration, the network, the epochs, the results, and what to type next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import Tensor

from experiments.config import Config
from experiments.data import Splits
from experiments.data.batches import PREFETCH, Batches
from experiments.models.classifier import Layer
from experiments.training.evaluation import Evaluation
from experiments.training.loop import EpochResult


def new_console() -> Console:
    """Where to print; a file or a pipe has no width of its own, so nothing is cut there."""
    made = Console(highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 300
    return made


console = new_console()


@contextlib.contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Nothing is printed here: of many runs each would fill a page."""
    console.quiet, before = silent, console.quiet
    try:
        yield
    finally:
        console.quiet = before


def show_start(config: Config, splits: Splits, device: torch.device) -> None:
    """The resolved configuration in short."""
    counts = f"{len(splits.train):,} train, {len(splits.validation):,} validation, {len(splits.test):,} test"
    size = "x".join(str(side) for side in splits.image_shape[1:])
    stop = config.early_stopping
    rows = {
        "data": f"{config.data.name}: {counts} ({config.data.split} split), {len(splits.classes)} classes, {size} pixels",
        "model": " ".join([config.model.target.rpartition(".")[2], *_pairs(config.model.parameters)]),
        "optimizer": f"{config.optimizer.name} lr={config.optimizer.lr:g} weight_decay={config.optimizer.weight_decay:g}, "
        f"{config.schedule.name} schedule",
        "training": f"at most {config.training.epochs} epochs, batches of {config.training.batch_size}, seed {config.seed}",
        "stopping": f"{stop.patience} epochs without a better {stop.monitor}"
        if stop.patience is not None
        else "never early",
        "device": f"{device} ({_hardware(device)}), {config.precision}",
    }
    rows |= {"evaluation": f"{config.evaluation.note} of every picture"} if config.evaluation.note else {}
    for key, value in rows.items():
        console.print(f"[bold]{key:<10}[/bold] {escape(value)}")


def _pairs(values: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"


def show_progress_so_far(name: str, history: Sequence[Mapping[str, float]], layers: Sequence[Layer]) -> None:
    """That a run is continued, and where; of a new run its network, a row per layer."""
    if history:
        console.print(f"\ncontinuing run [bold]{escape(name)}[/bold] after epoch {len(history)}\n")
        return
    table = Table("layer", "output shape", "parameters", box=None, padding=(0, 3, 0, 0))
    table.columns[2].justify = "right"
    for kind, shape, parameters in layers:
        table.add_row(kind, " x ".join(map(str, shape)), f"{parameters:,}" if parameters else "")
    console.print()
    console.print(table)
    console.print(f"[bold]{sum(parameters for *_, parameters in layers):,} parameters[/bold]\n")


class EpochLog:
    """A line an epoch; on a terminal, the running one is drawn below with what is known so far. Use in `with`."""

    REFRESH = 0.2  # seconds between two looks at the loss: on a GPU each look waits for it

    def __init__(self, epochs: int, batches: Batches) -> None:
        self.epochs = epochs
        self.images = len(batches.images)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._shown = self._started = time.perf_counter()
        if batches.streamed:
            size = f"{batches.images.nbytes / 1e9:.1f} GB"
            ahead = f"{PREFETCH} or more batches ahead"
            console.print(f"[bold]data[/bold]       {size} to train on, streamed from disk, {ahead}\n")

    def __enter__(self) -> EpochLog:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def step(self, epoch: int, step: int, images: int, losses: Tensor, correct: Tensor) -> None:
        now = time.perf_counter()
        if step == 1:
            self._started = now
        if not self._live or now - self._shown < self.REFRESH:
            return
        self._shown = now
        rate = images / max(now - self._started, 1e-9)
        left = (self.images - images) / max(rate, 1e-9)
        bar = "━" * round(24 * images / self.images)
        loss, accuracy = losses[:step].sum().item() / images, correct.item() / images
        text = (
            f"epoch {epoch:>3}/{self.epochs}  {bar:<24}  loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:,.0f} images/s"
        )
        self._live.update(Text(f"{text}  {left:.0f} s left"), refresh=True)

    def finish_epoch(self, result: EpochResult, best: bool) -> None:
        metrics = result.metrics
        console.print(
            f"epoch {result.epoch:>3}/{self.epochs}"
            f"  train loss {result.train_loss:.4f}  accuracy {result.train_accuracy:.4f}"
            f"  validation loss {result.validation.loss:.4f}  accuracy {result.validation.accuracy:.4f}"
            f"  {result.seconds:.1f} s  {metrics['images_per_second']:,.0f} images/s{'  best' if best else ''}"
        )


class TrackedRun(Protocol):
    """What is shown of a run besides its numbers; `has_model`: MLflow has its model, so that scripts can use it."""

    name: str
    run_id: str
    has_model: bool

    def url(self) -> str: ...


def show_end(
    run: TrackedRun,
    results: Mapping[str, float],
    note: str,
    evaluation: Evaluation | None,
    classes: Sequence[str],
) -> None:
    """The results, and what to type next; `evaluation` is None for a run that was finished before."""
    if evaluation is None:
        console.print("\nthis run is finished already; these are its results (resume=false trains anew)")
    show_results(results, note)
    if evaluation is not None:
        show_test(evaluation, classes)
    show_next(run.name, run.run_id, run.url(), run.has_model)


def show_results(results: Mapping[str, float], note: str, groups: str | tuple[str, ...] = ("best/", "test/")) -> None:
    """A line a metric of these groups, without those of single classes; `note` says how predictions were made."""
    console.print()
    beside = f"  {note}" if note else ""
    for name, value in results.items():
        if name == "best/epoch":
            console.print(f"{name:<18} {value:.0f}")
        elif name.startswith(groups) and "/f1/" not in name:
            console.print(f"[bold]{name:<18}[/bold] {value:.4f}{beside}")


def show_test(test: Evaluation, classes: Sequence[str]) -> None:
    """The confusion matrix (up to 20 classes) and the classes most often taken for each other."""
    console.print()
    if len(classes) <= 20:
        table = Table(title="true class down, predicted class across", title_justify="left", box=None)
        table.add_column("")
        for name in classes:
            table.add_column(escape(name[:10]), justify="right")
        table.add_column("recall", justify="right")
        for row, name in enumerate(classes):
            counts = [str(count) if count else "·" for count in test.confusion[row]]
            counts[row] = f"[bold]{counts[row]}[/bold]"
            share = f"{test.confusion[row, row] / test.support[row]:.2f}" if test.support[row] else "none"
            table.add_row(escape(name[:20]), *counts, share)
        console.print(table)
    pairs = [f"{classes[true]} taken for {classes[said]} {count}x" for true, said, count in test.most_confused(5)]
    console.print(f"most confused: {'; '.join(pairs) or 'nothing'}", markup=False)


def show_next(name: str, run_id: str, url: str, has_model: bool = True) -> None:
    """The run's name and id, and what to type next."""
    console.print(f"\nrun [bold]{escape(name)}[/bold] ({run_id})")
    console.print(f"look at it:   {url}", markup=False)
    if has_model:
        console.print(f"use it:       python scripts/predict.py PICTURE --run {run_id[:8]}", markup=False)
        console.print(f"ask it why:   python scripts/explain.py --mistakes 12 --sheet --run {run_id[:8]}", markup=False)


def show_predictions(name: str, run_id: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> None:
    """A row a picture: file, the most probable class, and those that come next; `rows` hold (file, [(class, share), ...])."""
    console.print(f"run [bold]{escape(name)}[/bold] ({run_id})\n")
    table = Table("file", "class", "probability", "then", box=None, padding=(0, 3, 0, 0))
    for file, ((best, probability), *rest) in rows:
        then = ", ".join(f"{other} {share:.1%}" for other, share in rest)
        table.add_row(Text(file), Text(best, style="bold"), f"{probability:.1%}", Text(then))
    console.print(table)
