"""One run from start to end: load, build, train, test once, keep. `run` reads top to bottom as the story of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.config import Config
from experiments.config.command_line import Command
from experiments.data import Splits, load_splits

if TYPE_CHECKING:
    from experiments.models.classifier import Layer
    from experiments.runs.checkpoint import State
    from experiments.runs.provenance import ParentRun
    from experiments.runs.start import ActiveRun
    from experiments.training.evaluation import Evaluation


@dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
        metrics: the final metrics, as MLflow has them.
        history: the metrics of each epoch.
        pruned: a pruner stopped the run.
    """

    run_id: str
    name: str
    metrics: dict[str, float]
    history: list[dict[str, float]]
    pruned: bool = False


def run(
    config: Config,
    command: Command = Command(),  # noqa: B008 - immutable
    parent: ParentRun | None = None,
    should_prune: Callable[[int, Mapping[str, float]], bool] = lambda epoch, metrics: False,
) -> Result:
    """Train, test and log the run that `config` describes; continue it where it was interrupted.

    A finished run is not trained again: its results are shown and returned.

    Args:
        command: what was typed, for the report and the tags of the run.
        parent: the multirun that the run belongs to; its runs are tested only where `config.evaluate_test` is true.
        should_prune: called with number and metrics of every epoch, after a restart also of those before it; the run
            stops where it returns True.

    Raises:
        UserError: for mistakes that only show here, such as missing data; nothing is logged then.
        Diverged: the loss is not finite.
    """
    splits = load_splits(config.data, config.seed)
    # torch takes seconds to import, so missing data is reported first
    from experiments.models.classifier import list_layers
    from experiments.reports import terminal
    from experiments.runs.start import started
    from experiments.training.devices import choose_device
    from experiments.training.learner import Learner, initial_model
    from experiments.training.loop import train

    device = choose_device(config)
    model = initial_model(config, splits)
    layers = list_layers(model, splits.image_shape)
    terminal.show_start(config, splits, device)
    test = config.evaluate_test if config.evaluate_test is not None else parent is None
    with started(config, command, splits, model, device, parent) as active:
        tracker, tested = active.tracker, None
        if active.is_complete(test):
            results, history = tracker.results(), tracker.history()
        else:
            state = active.restore(Learner.create(config, model, splits.train, device))
            terminal.show_progress_so_far(tracker.name, state.history, layers)
            state.prune(should_prune, first_epoch=1)
            with terminal.EpochLog(config.training.epochs, active.batches) as log:
                for epoch in train(state.learner, active.batches, active.validation, state.remaining, log):
                    tracker.log(epoch.epoch, epoch.metrics)
                    stop = state.update(epoch)
                    active.save(state)
                    log.finish_epoch(epoch, best=state.stopping.best_epoch == epoch.epoch)
                    if stop or state.prune(should_prune, epoch.epoch):
                        break
            results, history = state.results(), state.history
            if state.pruned:
                tracker.prune(len(history), results)
                return Result(tracker.run_id, tracker.name, results, history, pruned=True)
            tested = _evaluate_and_report(config, command, splits, active, state, layers, test)
            results |= tested.metrics("test", splits.classes) if test else {}
            tracker.finish(results, active.artifacts, state.final_model(), splits)
    terminal.show_end(tracker, results, config.evaluation.note, tested, splits.classes)
    return Result(tracker.run_id, tracker.name, results, history)


def _evaluate_and_report(
    config: Config,
    command: Command,
    splits: Splits,
    active: ActiveRun,
    state: State,
    layers: list[Layer],
    test: bool,
) -> Evaluation:
    """Write the report of a run, about its test set, or about its validation set where the test set is not to be used."""
    from experiments.data.augmentation import examples
    from experiments.reports import content, report
    from experiments.runs.provenance import environment
    from experiments.training.evaluation import evaluate_images

    learner, split = state.learner, "test" if test else "validation"
    evaluation, probabilities = evaluate_images(
        state.final_model(), splits.parts()[split], learner.device, learner.autocast, config.evaluation.tta
    )
    report.write(
        active.artifacts,
        content.Content(
            name=active.tracker.name,
            command=str(command),
            config=config,
            split=split,
            images=splits.parts()[split],
            probabilities=probabilities,
            evaluation=evaluation,
            class_counts=content.class_counts(splits, test),
            layers=layers,
            protocol=content.protocol(config, test),
            environment=environment(learner.device, splits.digest),
            history=state.history,
            best_epoch=state.stopping.best_epoch,
            augmented=examples(config.augment, splits.train) if config.augment.active else None,
        ),
    )
    return evaluation
