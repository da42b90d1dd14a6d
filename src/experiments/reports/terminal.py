"""What a run prints before and after its epochs: its configuration, the network, the results, and what to type next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.config import Config
from experiments.config.foreign import printable
from experiments.config.metrics import CALIBRATED
from experiments.config.processes import launched
from experiments.config.wording import counted, percent, shortened
from experiments.data import Splits
from experiments.models.classifier import Layers
from experiments.reports import confusion, network
from experiments.reports.console import new_console
from experiments.reports.content import few_images_of_run
from experiments.training.evaluation import Evaluation
from experiments.training.loop import RunningEpoch

console = new_console()


@contextlib.contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Print nothing inside this block: every run of many would print a page."""
    console.quiet, before = silent, console.quiet
    try:
        yield
    finally:
        console.quiet = before


def show_start(config: Config, splits: Splits, device: torch.device) -> None:
    """Print the resolved configuration in short."""
    counts = f"{len(splits.train):,} train, {len(splits.validation):,} validation, {len(splits.test):,} test"
    how = config.data.division if splits.drawn else "its own split"
    size = "x".join(str(side) for side in splits.image_shape[1:])
    stop, parameters = config.early_stopping, dict(config.model.parameters)
    parameters |= {"weights": config.model.weights} if config.model.weights else {}
    rows = {
        "data": f"{config.data.title}: {counts} ({how}), {counted(len(splits.classes), 'class', 'classes')}, {size} pixels",
        "model": " ".join(
            [config.model.target.rpartition(".")[2], *(f"{key}={value}" for key, value in parameters.items())]
        ),
        "optimizer": f"{config.optimizer.name} lr={config.optimizer.lr:g} weight_decay={config.optimizer.weight_decay:g}, "
        f"{config.schedule.name} schedule",
        "training": f"at most {counted(config.training.epochs, 'epoch')}, {config.training.batches}, seed {config.seed}",
        "stopping": f"{counted(stop.patience, 'epoch')} without a better {stop.monitor}"
        if stop.patience is not None
        else "never early",
        "device": f"{device} ({_hardware(device)}), {config.precision}{launched().note}",
    }
    rows |= {"frozen": config.training.frozen} if config.training.frozen else {}
    rows |= {"evaluation": f"{config.evaluation.note} of every image"} if config.evaluation.note else {}
    for key, value in rows.items():
        console.print(f"[bold]{key:<10}[/bold] {escape(value)}")


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else counted(torch.get_num_threads(), "thread")


def show_progress_so_far(
    run: TrackedRun, history: Sequence[Mapping[str, float]], running: RunningEpoch | None, layers: Layers, note: str
) -> None:
    """Print after which epoch, or step of an epoch, a run continues; for a new run, its network, one row per layer, and the note."""
    if (history or running) and not note:
        after = f"epoch {len(history)}"
        if running:
            after = f"step {running.step:,} of {len(running.losses):,} of epoch {running.epoch}"
        console.print(f"\ncontinuing run [bold]{escape(run.name)}[/bold] after {after}\n")
        _show_threads(run)
        return
    console.print()
    console.print(network.table(layers))
    console.print(f"[bold]{layers.counts}[/bold]{'; ' if layers.note else ''}{layers.note}\n")
    if note:
        console.print(f"{printable(note)}\n", markup=False)


class TrackedRun(Protocol):
    """What is shown of a run besides its numbers; `has_model`: MLflow has its model, so scripts can use it;
    `unsent`: what an MLflow server does not have yet; `threads`: CPU threads of the process that started it, 0 if that is not known.
    """

    name: str
    run_id: str
    threads: int

    @property
    def has_model(self) -> bool: ...

    @property
    def unsent(self) -> str: ...

    def url(self) -> str: ...


def show_end(
    run: TrackedRun,
    results: Mapping[str, float],
    note: str,
    evaluation: Evaluation | None,
    splits: Splits,
    cut: str = "",
) -> None:
    """Print the results, and what to type next; `evaluation` is None for a run that was finished before, `cut` says why it ended."""
    if evaluation is None:
        console.print("\nthis run is finished already; these are its results (resume=false trains anew)")
        _show_threads(run)
    if cut:
        console.print(f"\n{cut}", markup=False)
    show_results(results, note)
    if evaluation is not None:
        show_test(evaluation, splits.classes)
    if caution := few_images_of_run(splits, results):
        console.print(f"\n{caution}", markup=False)
    show_next(run.name, run.run_id, run.url(), run.has_model)
    if run.unsent:
        console.print(f"\n{printable(run.unsent)}", markup=False)


def _show_threads(run: TrackedRun) -> None:
    """Print that sums of another number of threads are rounded in another way."""
    threads = torch.get_num_threads()
    if run.threads not in (0, threads):
        console.print(
            f"it was started with {counted(run.threads, 'CPU thread')}; with {threads} the last digits may differ"
        )


def show_results(results: Mapping[str, float], note: str, groups: str | tuple[str, ...] = ("best/", "test/")) -> None:
    """Print one line per metric of these groups, without those per class, and one for all of the calibration.

    The kept epoch is shown only if it is not the best one.

    Args:
        note: how predictions were made.
    """
    console.print()
    beside = f"  {note}" if note else ""
    groups = ("kept/", *groups) if results.get("kept/epoch") != results.get("best/epoch") else groups
    apart = tuple(f"{between}{end}" for end in CALIBRATED for between in "/_")
    shown = {name: value for name, value in results.items() if name.startswith(groups) and "/f1/" not in name}
    shown = {name: value for name, value in shown.items() if not name.endswith(("temperature", *apart))}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if name.endswith("/epoch"):
            console.print(f"{name:<{width}}  {value:.0f}", markup=False)
        else:
            console.print(f"[bold]{escape(name):<{width}}[/bold]  {value:.4f}{beside}")
    if "temperature" in results:
        console.print(_calibration(results), markup=False)


def _calibration(results: Mapping[str, float]) -> str:
    """The temperature, and what it changes: on the test set, or the validation set of a run that is not tested."""
    ends = {"calibration error": "ece", "loss": "loss"}
    prefix = max(name.removesuffix("calibrated_ece") for name in results if name.endswith("calibrated_ece"))
    pairs = {name: tuple(results[f"{prefix}{form}{end}"] for form in ("", "calibrated_")) for name, end in ends.items()}
    split = "validation" if "val" in prefix else prefix.rstrip("/")
    if results["temperature"] == 1:
        error = f"{split} calibration error {results[f'{prefix}ece']:.4f}"
        return f"{error}: no temperature is significantly better on the validation images"
    changes = ", ".join(f"{name} {before:.4f} -> {after:.4f}" for name, (before, after) in pairs.items())
    return f"calibrated with temperature {results['temperature']:.3g}: {split} {changes}"


def show_test(test: Evaluation, classes: Sequence[str]) -> None:
    """Print the confusion matrix (up to 20 classes, if it fits the terminal) and the most frequent mistakes."""
    console.print()
    if len(classes) <= 20:
        matrix = confusion.table(console, test, classes)
        console.print(matrix or "the terminal is too narrow for the confusion matrix; report.html has it")
    names = [shortened(printable(name), 24) for name in classes]
    pairs = [f"{names[true]} predicted as {names[guess]} {count}x" for true, guess, count in test.most_confused(5)]
    console.print(f"most confused: {'; '.join(pairs) or 'nothing'}", markup=False)


def show_next(name: str, run_id: str, url: str, has_model: bool = True) -> None:
    """Print the run's name and id (none without MLflow), and what to type next."""
    console.print(f"\nrun [bold]{escape(name)}[/bold]{'' if run_id == 'none' else f' ({run_id})'}")
    console.print(f"look at it:   {url}", markup=False)
    if has_model:
        console.print(f"use it:       python scripts/predict.py PICTURE --run {run_id[:8]}", markup=False)
        console.print(f"explain it:   python scripts/explain.py --mistakes 12 --sheet --run {run_id[:8]}", markup=False)


def show_predictions(run: str, rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> None:
    """Print one row per picture from (file, answer, [(class, probability), ...]): the answer, and the next classes.

    If the answer is not the most probable class, this one is the first of the next ones.
    """
    console.print(f"{printable(run)}\n", markup=False)
    table = Table("file", "class", "probability", "then", box=None, padding=(0, 3, 0, 0))
    for file, answer, top in rows:
        (best, probability), *rest = top
        then = ", ".join(f"{other} {percent(value)}" for other, value in (rest if answer == best else top))
        names = Text(printable(file)), Text(printable(answer), style="bold")
        table.add_row(*names, percent(probability), Text(printable(then)))
    console.print(table)
