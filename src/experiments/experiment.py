"""A run from start to end: data, model, loop, test once, log. `run` is the story; what it calls does one thing each."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.command_line import config_dir
from experiments.config import MODELS, Config
from experiments.data import Splits
from experiments.data import load as load_data

if TYPE_CHECKING:
    from experiments import page
    from experiments.checkpoint import State
    from experiments.tracking import Membership, Tracker
    from experiments.untracked import NoTracker


@dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
        metrics: those that MLflow holds.
        history: the metrics of each epoch.
        pruned: it was given up before its end.
    """

    run_id: str
    name: str
    metrics: dict[str, float]
    history: list[dict[str, float]]
    pruned: bool = False


def run(
    config: Config,
    overrides: Sequence[str] = (),
    membership: Membership | None = None,
    hopeless: Callable[[int, Mapping[str, float]], bool] = lambda epoch, metrics: False,
) -> Result:
    """Train, test and log what `config` describes; or continue it, or tell its results, where it was run before.

    Args:
        membership: the multirun that it is a point of; a point is not tested unless `config.evaluate_test` is true.
        hopeless: is told every epoch, from the first on also where the run is continued; True gives the run up.

    Raises:
        UserError: for mistakes that only show here, such as missing data; nothing is logged then.
        training.Diverged: where the loss is not a number any more.
    """
    splits = load_data(config.data, config.seed)
    # torch takes seconds: missing data is reported before
    from experiments import checkpoint, devices, evaluation, identity, report, terminal
    from experiments.learning import Learner, untrained

    device = devices.choose(config)
    model = untrained(config, splits)
    terminal.show_start(config, splits, device)
    if config.model.target not in MODELS and config.tracking.uri:
        from experiments import exporting

        exporting.check_export(model, config.model.target, splits.image_shape)
    fingerprint = identity.fingerprint(config, device.type, splits.digest)
    with (
        identity.hold(_folder(config, fingerprint)) as folder,
        _tracked(config, fingerprint, overrides, splits, folder, membership) as tracker,
    ):
        note = config.evaluation.note
        test = config.evaluate_test if config.evaluate_test is not None else membership is None
        if tracker.finished and (tracker.tested or not test):
            results = tracker.results()
            terminal.show_finished(tracker.name, tracker.run_id, results, note, tracker.hint(), tracker.usable)
            return Result(tracker.run_id, tracker.name, results, tracker.history())
        learner = Learner.of(config, model, splits.train, device)
        state = checkpoint.State.fresh(learner)
        saved = folder / "checkpoint.pt"
        if config.resume and (state.restore(saved, tracker.run_id) or tracker.restore(state)):
            terminal.show_continued(tracker.name, len(state.history))
        else:
            terminal.show_network(model, splits.image_shape)
        if not _train(config, splits, state, tracker, saved, hopeless):
            tracker.prune(len(state.history), _results(state))
            return Result(tracker.run_id, tracker.name, _results(state), state.history, pruned=True)
        content = _report(config, tracker.name, overrides, splits, state, test)
        results = _results(state) | (evaluation.test_metrics(content.test, splits.classes) if test else {})
        report.write(folder / "artifacts", content)
        tracker.finish(results, folder / "artifacts", state.final_model(), _example(splits), splits.classes)
    terminal.show_results(results, note)
    terminal.show_test(content.test, splits.classes)
    terminal.show_next(tracker.name, tracker.run_id, tracker.hint(), tracker.usable)
    return Result(tracker.run_id, tracker.name, results, state.history)


def _train(
    config: Config,
    splits: Splits,
    state: State,
    tracker: Tracker | NoTracker,
    saved: Path,
    hopeless: Callable[[int, Mapping[str, float]], bool],
) -> bool:
    """The epochs that are left, each kept before the next one starts; False where the run is to be given up."""
    from experiments import evaluation, terminal, training
    from experiments.data.batches import Batches

    told = [hopeless(number, metrics) for number, metrics in enumerate(state.history, start=1)]
    epochs = state.remaining(config.training.epochs)
    if epochs and any(told[-1:]):  # killed between this epoch and what follows from it
        return False
    device = state.learner.device
    train_batches = Batches(splits.train, config.training.batch_size, device, config.training.sampler)
    validation_batches = Batches(splits.validation, evaluation.batch_size(splits.image_shape), device)
    terminal.show_streaming(train_batches)
    with terminal.EpochLog(config.training.epochs, len(splits.train)) as log:
        for epoch in training.train(state.learner, train_batches, validation_batches, epochs, log):
            tracker.log(epoch.epoch, epoch.metrics)
            stop = state.update(epoch)
            state.save(saved, tracker.run_id, config, splits)
            log.finish_epoch(epoch, best=state.stopping.best_epoch == epoch.epoch)
            if stop:
                break
            if hopeless(epoch.epoch, epoch.metrics) and epoch.epoch < config.training.epochs:
                return False
    return True


def _folder(config: Config, fingerprint: str) -> Path:
    return Path(config.outputs) / "runs" / (fingerprint[:16] + ("" if config.tracking.uri else "-untracked"))


@contextlib.contextmanager
def _tracked(
    config: Config,
    fingerprint: str,
    overrides: Sequence[str],
    splits: Splits,
    folder: Path,
    membership: Membership | None,
) -> Iterator[Tracker | NoTracker]:
    """The tracker of this run; a run that does not come to its end is marked as killed or failed."""
    if config.tracking.uri is None:
        from experiments import untracked

        tracker: Tracker | NoTracker = untracked.NoTracker(folder, config, fingerprint, membership)
    else:
        from experiments import tracking

        tracker = tracking.Tracker(config, fingerprint, overrides, splits, membership)
    try:
        yield tracker
    except BaseException as error:
        if not tracker.finished:  # else nothing is left to do but to tell, and that may fail without harm
            tracker.fail(error)
        raise


def _example(splits: Splits) -> np.ndarray:
    """Two training pictures, or one twice: the model is exported with them, and one alone would fix its batch size."""
    return np.resize(splits.train[:2].pixels, (2, *splits.image_shape))


def _results(state: State) -> dict[str, float]:
    """What training came to; `seconds` are those of all epochs."""
    best = state.history[state.stopping.best_epoch - 1]
    return {
        "best/epoch": state.stopping.best_epoch,
        "best/val_loss": best["val/loss"],
        "best/val_accuracy": best["val/accuracy"],
        "parameters": sum(parameter.numel() for parameter in state.learner.model.parameters()),
        "seconds": sum(epoch["epoch_seconds"] for epoch in state.history),
    }


def _report(
    config: Config,
    name: str,
    overrides: Sequence[str],
    splits: Splits,
    state: State,
    test: bool,
) -> page.Content:
    """What the run's report tells: of the test set, or where that is not to be touched, of the validation set."""
    import torch

    from experiments import evaluation, models, page, report
    from experiments.data.augmentation import examples
    from experiments.data.batches import Batches

    parts = {"training": splits.train, "validation": splits.validation}
    if test:
        parts["test"] = splits.test
    images, device = parts["test" if test else "validation"], state.learner.device
    batches = Batches(images, evaluation.batch_size(splits.image_shape), device)
    model = state.final_model()
    logits = evaluation.predict(model, batches, state.learner.autocast, config.evaluation.tta)
    return page.Content(
        name=name,
        command=shlex.join(["python", "train.py", *config_dir(), *overrides]),
        config=config,
        images=images,
        probabilities=logits.softmax(dim=1).cpu().numpy(),
        test=evaluation.score(logits, torch.tensor(images.labels, device=logits.device)),
        history=state.history,
        best_epoch=state.stopping.best_epoch,
        balance={part: images.class_counts for part, images in parts.items()},
        layers=models.layers(model, splits.image_shape),
        statement=_statement(config, test),
        environment=report.environment(device.type, torch.get_num_threads(), splits.digest),
        split="test" if test else "validation",
        augmented=examples(config.augment, splits.train) if config.augment.changes else None,
    )


def _statement(config: Config, test: bool) -> str:
    """How often, and with what, the test set was looked at, and what was chosen by the validation set."""
    stopping = config.early_stopping
    weights = f"with the weights of {'the best epoch' if stopping.restore_best else 'the last epoch'}"
    uses = {"early stopping": stopping.patience is not None, "the choice of the epoch": stopping.restore_best}
    chosen = " and ".join(use for use, made in uses.items() if made)
    if test:
        alone = f"{chosen} went by validation alone" if chosen else "nothing in this run was chosen by validation"
        return f"The test set was looked at once, when training was over, {weights}; {alone}."
    flatters = f"{chosen} went by it too, so it flatters" if chosen else "nothing in this run was chosen by it"
    return f"The test set was not looked at. This is about the validation set, {weights}; {flatters}."
