"""A run continues another one from the last epoch up to which both have the same weights.

fork = start_from_another(state, trunk, pool, validation, should_prune)     # None: no checkpoint of such an epoch is left

The result is that of a run from its first epoch, to the last bit: settings that never act on the weights are applied to
the epochs taken over. Early stopping is replayed over their metrics, and the validation is repeated where it differs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config.metrics import EPOCH_METRICS
from experiments.config.wording import counted
from experiments.data.batches import Batches
from experiments.models.classifier import Classifier
from experiments.runs.checkpoint import ShouldPrune, State
from experiments.runs.checkpoint_files import read
from experiments.runs.pool import Pool
from experiments.runs.trunks import Record, Trunk
from experiments.training.devices import can_continue_with
from experiments.training.early_stopping import EarlyStopping
from experiments.training.evaluation import evaluate

Content = dict[str, Any]  # of a checkpoint


@dataclass(frozen=True)
class Source:
    """A checkpoint of another run after an epoch that both runs share."""

    epoch: int
    file: Path
    record: Record

    def read(self) -> Content | None:
        """Its content; None if it is damaged, deleted, or of another epoch, because that run is being trained."""
        try:
            content = read(self.file)
        except (OSError, ValueError):
            return None
        return content if content and len(content["history"]) == self.epoch else None


@dataclass(frozen=True)
class Fork:
    """Where a run continues another one.

    Attributes:
        content: of the checkpoint.
        best: the weights of the best epoch, if the run keeps those.
    """

    source: Source
    content: Content
    history: list[dict[str, float]]
    stopping: EarlyStopping
    best: dict[str, Tensor] | None

    @property
    def epoch(self) -> int:
        return len(self.history)

    def start(self, state: State) -> None:
        """Set the state of a fresh run to that after the last epoch it takes over."""
        state.load(self.content)
        state.history, state.stopping, state.best = self.history, self.stopping, self.best
        state.note = f"continues run {self.source.record.run[:8]} from epoch {self.epoch}"


def start_from_another(
    state: State, trunk: Trunk, pool: Pool | None, validation: Callable[[], Batches], should_prune: ShouldPrune
) -> Fork | None:
    """Set a fresh state to the last epoch that another run shares, unless a pruner stops it before; None if there is none."""
    forks = Forks(state, trunk, pool, validation)
    fork = forks.find(most=state.learner.config.training.epochs)
    answers = [should_prune(epoch, values) for epoch, values in enumerate(fork.history if fork else (), 1)]
    pruned = next((epoch for epoch, answer in enumerate(answers, 1) if answer), None)
    if fork and pruned and pruned < fork.epoch:
        fork = forks.find(most=pruned)
    if fork is None:
        state.note = forks.why_not()
        return None
    fork.start(state)
    state.pruned = answers[fork.epoch - 1] if state.remaining else False
    return fork


class Forks:
    """The checkpoints from which a fresh run may continue.

    Args:
        pool: of the multirun, if the run belongs to one.
        validation: the validation set.
    """

    def __init__(self, state: State, trunk: Trunk, pool: Pool | None, validation: Callable[[], Batches]) -> None:
        self._learner, self._fresh, self._trunk, self._validation = state.learner, state.stopping, trunk, validation
        self._others = list(trunk.others())
        self._sources = [source for record in self._others for source in self._of_run(record, pool)]

    def _of_run(self, record: Record, pool: Pool | None) -> Iterator[Source]:
        """The usable checkpoints of a run."""
        if not can_continue_with(record.threads, self._learner.config):
            return
        files, newest = pool.files(record.name) if pool else {}, self._trunk.checkpoint(record)
        if newest.exists() and (epochs := record.epochs or _count_epochs(newest)):
            files[epochs] = newest
        shared = self._trunk.shared(record, max(files, default=0))
        yield from (Source(epoch, file, record) for epoch, file in files.items() if epoch <= shared)

    def find(self, most: int) -> Fork | None:
        """The fork after the latest epoch, at most `most`; None without one."""
        best: Fork | None = None
        here = torch.get_num_threads()
        for threads in sorted({source.record.threads for source in self._sources}, key=lambda count: count != here):
            usable = [each for each in self._sources if each.record.threads == threads and each.epoch <= most]
            fork = self._jump(usable)
            if threads == here:  # only these evaluate to the same bits
                fork = self._walk(fork, usable)
            if fork and (best is None or fork.epoch > best.epoch):
                best = fork
        return best

    def _same_validation(self, source: Source) -> bool:
        return source.record.validation == self._trunk.own.validation

    def _jump(self, sources: Sequence[Source]) -> Fork | None:
        """The latest fork from a run whose metrics would be those of this one."""
        alike, most = [source for source in sources if self._same_validation(source)], math.inf
        while usable := [source for source in alike if source.epoch <= most]:
            source = max(usable, key=lambda each: each.epoch)
            alike.remove(source)
            if (content := source.read()) is None:
                continue
            stopping, last = self._replay(content["history"])
            if last < source.epoch:  # this run would have stopped there
                most = last
                continue
            if not stopping.settings.restore_best:
                return Fork(source, content, content["history"], stopping, None)
            if best := _best(stopping.best_epoch, content, sources):
                return Fork(source, content, content["history"], stopping, best)
        return None

    def _replay(self, history: Sequence[dict[str, float]]) -> tuple[EarlyStopping, int]:
        """Early stopping of this run after these epochs, and the epoch in which it stops, or the last one."""
        stopping = copy.copy(self._fresh)
        for epoch, metrics in enumerate(history, 1):
            if stopping.update(epoch, metrics):
                return stopping, epoch
        return stopping, len(history)

    def _walk(self, start: Fork | None, sources: Sequence[Source]) -> Fork | None:
        """The fork that is reached from `start`, or from the first epoch, by evaluating the weights after each epoch."""
        if all(map(self._same_validation, sources)):
            return start
        after = {source.epoch: source for source in sorted(sources, key=self._same_validation)}
        stopping = copy.copy(start.stopping if start else self._fresh)
        history, best, reached = list(start.history if start else ()), start.best if start else None, start
        model = copy.deepcopy(self._learner.eval_model)
        while not stopping.stopped and (source := after.get(len(history) + 1)) and (content := source.read()):
            metrics = content["history"][-1]
            if not self._same_validation(source):
                metrics = metrics | self._evaluate(model, content)
            if not math.isfinite(metrics["val/loss"]):  # training will find this, too, and say so
                break
            history.append(metrics)
            stopping.update(len(history), metrics)
            if stopping.settings.restore_best and stopping.best_epoch == len(history):
                best = evaluated_weights(content)
            reached = Fork(source, content, list(history), copy.copy(stopping), best)
        return reached

    def _evaluate(self, model: Classifier, content: Content) -> dict[str, float]:
        """The metrics of the validation with the weights of a checkpoint."""
        model.load_state_dict(evaluated_weights(content))
        learner = self._learner
        validation = evaluate(model, self._validation(), learner.autocast, learner.config.evaluation.tta)
        names = (name for name in EPOCH_METRICS if name.startswith("val/"))
        return {name: getattr(validation, name.removeprefix("val/")) for name in names}

    def why_not(self) -> str:
        """Why a shorter run of the same schedule cannot be continued; empty if there is none, or if its checkpoint is gone."""
        config, found = self._learner.config, []
        for record in self._others:
            if record.schedule.name == config.schedule.name and 0 < (record.epochs or 0) < config.training.epochs:
                found.append((self._trunk.shared(record, record.epochs or 0), record.epochs or 0, record.name, record))
        if not found:
            return ""
        shared, last, _, record = max(found, key=lambda row: row[:3])
        if shared < last:
            return self._trunk.why_not(record)
        if can_continue_with(record.threads, config):
            return ""
        now, then = (counted(count, "CPU thread") for count in (torch.get_num_threads(), record.threads))
        return f"run {record.run[:8]} cannot be continued with {now}: it was trained with {then if record.threads else 'several numbers'}"


def _count_epochs(file: Path) -> int:
    """The epochs in the checkpoint of a run that was killed; 0 if it is not usable."""
    try:
        content = read(file)
    except (OSError, ValueError):
        return 0
    return len(content["history"]) if content else 0


def _best(epoch: int, content: Content, sources: Sequence[Source]) -> dict[str, Tensor] | None:
    """The weights after the best epoch, from a checkpoint or from that of this epoch; None if neither has them."""
    if content["best"] is not None and content["stopping"]["best_epoch"] == epoch:
        best: dict[str, Tensor] = content["best"]
        return best
    if len(content["history"]) == epoch:
        return evaluated_weights(content)
    found = (source.read() for source in sources if source.epoch == epoch)
    return next((evaluated_weights(each) for each in found if each), None)


def evaluated_weights(content: Content) -> dict[str, Tensor]:
    """The weights that are validated and kept: their average, if there is one."""
    weights: dict[str, Tensor] = content["average"] or content["model"]
    return weights
