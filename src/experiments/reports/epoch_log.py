"""What a run prints of its epochs: a line for each, and a bar for the running one, which never waits for a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from experiments.data.batches import Batches
from experiments.reports import terminal
from experiments.training.loop import EpochResult, RunningEpoch


class EpochLog:
    """One line per epoch; on a terminal, a bar below them shows the running epoch. Use in `with`."""

    REFRESH = 0.2  # seconds between two readings of the loss

    def __init__(self, epochs: int, batches: Batches) -> None:
        self.epochs, self._means = epochs, RunningMeans()
        self._shown, self._epoch = time.perf_counter(), 0
        columns = (
            TextColumn(f"epoch {{task.description:>3}}/{epochs}"),
            BarColumn(24),
            TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}"),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
        )
        hidden = not terminal.console.is_terminal
        self._bar = Progress(*columns, console=terminal.console, auto_refresh=False, transient=True, disable=hidden)
        self._task = self._bar.add_task("", total=len(batches.images), visible=False, loss=0.0, accuracy=0.0, speed=0.0)
        if batches.note:
            terminal.console.print(f"[bold]data[/bold]       {batches.note}\n")

    def __enter__(self) -> EpochLog:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, running: RunningEpoch) -> None:
        """Show the mean over the images of the epoch so far, at most every `REFRESH` seconds, and only on a terminal."""
        now, images = time.perf_counter(), running.images
        if running.epoch != self._epoch:
            self._bar.reset(self._task, completed=images, description=str(running.epoch), visible=False)
            self._epoch, self._shown = running.epoch, now
        if self._bar.disable or now - self._shown < self.REFRESH:
            return
        self._shown = now
        self._bar.update(
            self._task,
            completed=images,
            visible=self._means.update(running),
            refresh=True,
            loss=self._means.loss,
            accuracy=self._means.accuracy,
            speed=images / max(now - running.started, 1e-9),
        )

    def finish_epoch(self, result: EpochResult, best: bool) -> None:
        """Print every metric of training and of validation."""
        metrics = result.metrics
        terminal.console.print(
            f"epoch {result.epoch:>3}/{self.epochs}"
            f"  train {_values(metrics, 'train/')}  validation {_values(metrics, 'val/')}"
            f"  {result.seconds:.1f} s  {metrics['images_per_second']:,.0f} images/s{'  best' if best else ''}"
        )


def _values(metrics: Mapping[str, float], prefix: str) -> str:
    """The metrics whose names start with `prefix`, which is left out."""
    shown = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())


class HostCopy:
    """A copy of a small tensor in the memory of the CPU; that of a CUDA tensor arrives after the steps so far."""

    def __init__(self, tensor: Tensor) -> None:
        cuda = tensor.device.type == "cuda"
        self.values = tensor.to("cpu", non_blocking=cuda)  # into pinned memory
        self._done = torch.cuda.current_stream(tensor.device).record_event() if cuda else None

    @property
    def has_arrived(self) -> bool:
        return self._done is None or self._done.query()


class RunningMeans:
    """Means over the images of the running epoch: on a CPU of all steps so far, on a GPU of those that were done a moment ago.

    Args:
        copy: starts a copy.

    Attributes:
        epoch: of the means; 0 before the first ones.
    """

    def __init__(self, copy: Callable[[Tensor], HostCopy] = HostCopy) -> None:
        self._start = copy
        self._copy: HostCopy | None = None
        self._of = (0, 0)
        self.epoch, self.loss, self.accuracy = 0, 0.0, 0.0

    def update(self, running: RunningEpoch) -> bool:
        """Take the sums that have arrived, and ask for the next ones; returns whether there are means of this epoch."""
        self._take()
        if self._copy is None:
            sums = torch.stack([running.losses[: running.step].sum(), running.correct.float()])
            self._copy, self._of = self._start(sums), (running.epoch, running.images)
            self._take()
        return self.epoch == running.epoch

    def _take(self) -> None:
        if self._copy is not None and self._copy.has_arrived:
            self.epoch, images = self._of
            self.loss, self.accuracy = (value / images for value in self._copy.values.tolist())
            self._copy = None
