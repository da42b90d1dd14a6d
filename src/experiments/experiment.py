"""One run from start to end: load, build, start, train, evaluate once, report, finish. `run` reads top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.config import Config
from experiments.config.command_line import Command
from experiments.data import Splits, load_splits
from experiments.training.ranks import OneProcess, Ranks, join

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from experiments.models.classifier import Classifier
    from experiments.models.weights import Weights
    from experiments.runs.checkpoint import ShouldPrune, State
    from experiments.runs.provenance import ParentRun
    from experiments.runs.start import ActiveRun
    from experiments.training.evaluation import Evaluation
    from experiments.training.learner import Learner


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        run_id: its id in MLflow; "none" with tracking=none.
        metrics: the final metrics, by their names in MLflow.
        history: the metrics of each epoch.
        pruned: after which epoch the run was stopped, and why if it was not a pruner; else empty.
        cut_short: training.budget has stopped it.
    """

    run_id: str
    name: str
    metrics: dict[str, float]
    history: list[dict[str, float]]
    pruned: str = ""
    cut_short: bool = False


def never(epoch: int, metrics: Mapping[str, float]) -> bool:
    """No run is pruned."""
    return False


def run(
    config: Config,
    command: Command = Command(),  # noqa: B008 - immutable
    parent: ParentRun | None = None,
    should_prune: ShouldPrune = never,
    weights: Weights | None = None,
) -> Result:
    """Train, test and log the run of `config`; continue it if it was interrupted, show its results if it is finished.

    Args:
        command: the command line, for the report and the tags of the run.
        parent: the multirun that the run belongs to; its runs are tested only if `config.evaluate_test` is true.
        should_prune: called with the number and the metrics of every epoch, also of those before a restart.
        weights: to start from, in place of those that `config.model.weights` names.

    Raises:
        UserError: a mistake that only shows here, such as missing data; nothing is logged then.
        Diverged: the loss is not finite; the best epoch before that is kept.
    """
    ranks = join(config, f"; this continues it:  {command.resumed()}")
    splits = ranks.in_turn(lambda: load_splits(config.data))
    from experiments.reports import epoch_log, features, terminal  # these import torch: missing data is reported first
    from experiments.runs.start import started
    from experiments.training.devices import deterministic
    from experiments.training.learner import Learner
    from experiments.training.loop import train

    config, device, model = _before_the_first_step(config, splits, ranks, weights)
    terminal.show_start(config, splits, device)
    with started(config, command, splits, model, device, parent, ranks) as active, deterministic(config):
        tracker = active.tracker
        if active.is_complete:
            return _show_again(active)
        state = active.restore(Learner.create(config, model, splits.train, device, ranks), should_prune)
        terminal.show_progress_so_far(tracker, state.history, state.running, active.layers, state.note)
        active = dataclasses.replace(active, inputs=ranks.in_turn(lambda: features.prepared(state.learner, splits)))
        log = epoch_log.EpochLog(config.training.epochs, active.batches)
        with _keeping(active, state), log, active.saving(state, log) as saver:
            for epoch in train(state.learner, active.batches, active.validation, state.remaining, saver, state.running):
                tracker.log(epoch.epoch, epoch.metrics)
                stop = state.update(epoch)
                active.save(state)
                log.finish_epoch(epoch, best=state.stopping.best_epoch == epoch.epoch)
                if active.ends(state, stop, should_prune):
                    break
        if state.pruned:
            return Result(tracker.run_id, tracker.name, active.prune(state), state.history, state.why_pruned)
        results, evaluation = _finish(active, state)
    terminal.show_end(tracker, results, config.evaluation.note, evaluation, splits, active.limit.text(state.history))
    return Result(tracker.run_id, tracker.name, results, state.history, cut_short=active.limit.has_stopped)


def _before_the_first_step(
    config: Config, splits: Splits, ranks: OneProcess | Ranks, weights: Weights | None
) -> tuple[Config, torch.device, Classifier]:
    """The configuration with the id of the run whose weights it names, the device, and the model."""
    from experiments.runs.weights import initial_weights, with_run_id  # these import torch
    from experiments.training.devices import choose_device
    from experiments.training.learner import initial_model

    device = choose_device(config)
    config = config if weights else ranks.in_turn(lambda: with_run_id(config))
    model = ranks.in_turn(lambda: initial_model(config, splits, weights or initial_weights(config)))
    return config, device, model


def _finish(active: ActiveRun, state: State) -> tuple[dict[str, float], Evaluation]:
    """Evaluate, report and close the run, a second time if its folder was deleted meanwhile; its final metrics and evaluation."""

    def finish() -> tuple[dict[str, float], Evaluation]:
        evaluation, measured = _evaluate_and_report(active, state)
        return active.finish(state, measured), evaluation

    try:
        return finish()
    except FileNotFoundError:
        if active.ranks.count > 1:  # the others have gone on
            raise
        return finish()


def _show_again(active: ActiveRun) -> Result:
    """Show the results of a run that was finished before."""
    from experiments.reports import terminal  # imports torch

    active.keep_one_checkpoint()
    tracker, results = active.tracker, active.tracker.results()
    history = tracker.history()
    cut = active.limit.text(history)
    terminal.show_end(tracker, results, active.config.evaluation.note, None, active.splits, cut)
    return Result(tracker.run_id, tracker.name, results, history, cut_short=active.limit.has_stopped)


@contextlib.contextmanager
def _keeping(active: ActiveRun, state: State) -> Iterator[None]:
    """If the training in this block diverges, log the report and the model of the epochs before; the test set is not used.

    If memory is not enough, the error says what would fit.
    """
    from experiments.training.loop import Diverged  # imports torch, as the next one does
    from experiments.training.out_of_memory import advised

    try:
        with advised(active.config, active.command):
            yield
    except Diverged as error:
        if not active.restore_last_epoch(state):  # it was the first epoch
            raise
        _, measured = _evaluate_and_report(dataclasses.replace(active, test=False), state)
        active.keep(state, measured)
        kept = f"epoch {state.kept_epoch} and its report are kept; look at it:  {active.tracker.url()}"
        raise Diverged(f"{error}; {kept}") from None


def _evaluate_and_report(active: ActiveRun, state: State) -> tuple[Evaluation, dict[str, float]]:
    """Evaluate on the test set, or on the validation set if the run is not to be tested, calibrate, and write the report.

    Returns the evaluation, and the metrics that it adds to those of the training.
    """
    from experiments.data.augmentation import examples  # this and what follows import torch
    from experiments.reports import content, report
    from experiments.runs.provenance import environment
    from experiments.training.calibration import calibrate, probabilities

    config, splits, learner = active.config, active.splits, state.learner
    split, test = ("test", True) if active.test else ("validation", False)
    state.final_model()  # has the weights to keep
    learner.eval_model.temperature = 1.0  # not that of the first try, if the run's folder was deleted meanwhile
    evaluation, logits = _logits(active, learner, split)
    measured = evaluation.metrics("test", splits.classes) if test else {}
    images, calibration = splits.parts()[split], None
    if config.evaluation.calibrate:
        known = _logits(active, learner, "validation")[1] if test else logits
        calibration = calibrate(learner, known, splits.validation.labels, logits, images.labels)
        measured |= calibration.metrics("test/" if test else "kept/val_")

    def write() -> None:
        shown = content.Content(
            name=active.tracker.name,
            command=str(active.command),
            config=config,
            split=split,
            images=images,
            probabilities=probabilities(logits, learner.eval_model.temperature),
            evaluation=evaluation,
            calibration=calibration,
            class_counts=content.class_counts(splits, test),
            layers=active.layers,
            protocol=content.protocol(config, test),
            environment=environment(learner.device, splits.digest, learner.model.weights_digest),
            skipped=splits.skipped,
            history=state.history,
            best_epoch=state.stopping.best_epoch,
            kept_epoch=state.kept_epoch,
            augmented=examples(config.augment, splits.train) if config.augment.active else None,
        )
        report.write(active.artifacts, shown)

    learner.ranks.decided(write)
    return evaluation, measured


def _logits(active: ActiveRun, learner: Learner, split: str) -> tuple[Evaluation, Tensor]:
    """The evaluation of a split and its logits, see `training.evaluation.evaluate_images`."""
    from experiments.training.evaluation import batch_size, evaluate_images  # imports torch

    inputs, size = active.inputs.parts()[split], batch_size(active.splits.image_shape, learner.device.type)
    tta, ranks = active.config.evaluation.tta, learner.ranks
    return evaluate_images(learner.eval_forward, inputs, learner.device, learner.autocast, tta, size, ranks)
