"""The state of training, and its checkpoint: one file of plain containers and tensors, from which a run continues.

The file ends with the SHA-256 of its content, and the checkpoint before it is kept: if the newest one is damaged, the run
continues from the one before. A state inside an epoch has a file of its own, which is deleted when the epoch is saved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from experiments.config import Config
from experiments.config.foreign import mask_passwords
from experiments.config.metrics import of_epoch
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs.checkpoint_files import newest, write
from experiments.runs.provenance import change_of_machine, machine
from experiments.training.devices import random_state, set_random_state
from experiments.training.early_stopping import EarlyStopping
from experiments.training.learner import Learner
from experiments.training.loop import EpochResult, RunningEpoch

# Number and metrics of an epoch -> whether to stop after it, or why. After `ENOUGH`, the run is tested and finished.
ShouldPrune = Callable[[int, Mapping[str, float]], bool | str]
ENOUGH = "enough"
log = logging.getLogger(__name__)


@dataclass
class State:
    """Everything that training changes.

    Attributes:
        learner: has the model, its optimizer, and the average of its weights if there is one.
        history: the metrics of each epoch so far.
        best: the weights of the best epoch, on the CPU; None if the run keeps those of its last epoch.
        running: the epoch after those of the history, if some of its steps are done.
        pruned: a pruner has stopped the training, or another reason to stop it.
        out_of_time: the run ends here as a finished one, because of training.budget or `ENOUGH`.
        moved: another machine or device has trained the first epochs.
        note: from which run it continues, or why it cannot, in words; else empty.
        processes: that have computed the last epochs; 0 if there are none.
    """

    learner: Learner
    stopping: EarlyStopping
    history: list[dict[str, float]]
    best: dict[str, Tensor] | None
    running: RunningEpoch | None = None
    pruned: bool | str = False
    out_of_time: bool = False
    moved: bool = False
    note: str = ""
    processes: int = 0

    @classmethod
    def fresh(cls, learner: Learner) -> State:
        """The state before the first epoch."""
        config = learner.config
        stopping = EarlyStopping(config.early_stopping, first=config.training.unfreeze_epoch or 1)
        return cls(learner, stopping, [], None)

    @property
    def remaining(self) -> range:
        """The epochs still to train, counted from 1; none after early stopping or pruning."""
        epochs = self.learner.config.training.epochs
        over = self.stopping.stopped or self.pruned or self.out_of_time
        return range(0) if over else range(len(self.history) + 1, epochs + 1)

    def update(self, epoch: EpochResult) -> bool:
        """Add the results of an epoch; True if early stopping ends the training after it."""
        self.running = None  # first: an epoch that is interrupted from here on is not saved as a running one
        self.history.append(epoch.metrics)
        stop = self.stopping.update(epoch.epoch, epoch.metrics)
        if self.stopping.settings.restore_best and self.stopping.best_epoch == epoch.epoch:
            weights = self.learner.eval_model.state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        return stop

    def prune(self, should_prune: ShouldPrune, first_epoch: int) -> bool:
        """Ask a pruner about every epoch from `first_epoch` on; True if the training ends after the last one."""
        answers = [should_prune(epoch, self.history[epoch - 1]) for epoch in range(first_epoch, len(self.history) + 1)]
        self.pruned = answers[-1] if answers and self.remaining else False
        if self.pruned == ENOUGH:
            self.pruned, self.out_of_time = False, True
        return bool(self.pruned or self.out_of_time)

    @property
    def why_pruned(self) -> str:
        """After which epoch the training was stopped, and why if it was not a pruner."""
        return f"after epoch {len(self.history)}" + (f": {self.pruned}" if isinstance(self.pruned, str) else "")

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are kept and tested, counted from 1."""
        return self.stopping.best_epoch if self.stopping.settings.restore_best else len(self.history)

    def results(self) -> dict[str, float]:
        """The final metrics of training; `seconds` is the sum over all epochs."""
        epochs: dict[Literal["kept", "best"], int] = {"kept": self.kept_epoch, "best": self.stopping.best_epoch}
        final = [of_epoch(prefix, epoch, self.history[epoch - 1]) for prefix, epoch in epochs.items()]
        return {
            **final[0],
            **final[1],
            "parameters": sum(parameter.numel() for parameter in self.learner.model.parameters()),
            "trainable_parameters": self.learner.optimizer.parameters,
            "seconds": sum(epoch["epoch_seconds"] for epoch in self.history),
        }

    def final_model(self) -> Classifier:
        """The model with the weights to keep, in evaluation mode."""
        model = self.learner.eval_model
        if self.best is not None:
            model.load_state_dict(self.best)
        return model.eval()

    def save(self, path: Path, run_id: str, config: Config, splits: Splits) -> None:
        """Write the state; if the process or the machine stops, there is either this state or the previous one.

        Args:
            path: of the checkpoint after an epoch; that of the running epoch is written beside it.
        """
        write(self.content(run_id, config, splits), path, inside_epoch=self.running is not None)

    def content(self, run_id: str, config: Config, splits: Splits) -> dict[str, Any]:
        """What a checkpoint holds."""
        learner = self.learner
        return {
            "run_id": run_id,
            "config": mask_passwords(config.to_dict()),
            "classes": list(splits.classes),
            "image_shape": list(splits.image_shape),
            "model": learner.model.state_dict(),
            "average": learner.average.model.state_dict() if learner.average else None,
            "best": self.best,
            "optimizer": learner.optimizer.state_dict(),
            "stopping": self.stopping.state_dict(),
            "history": self.history,
            "running": self.running.state_dict() if self.running else None,
            "processes": learner.ranks.count,
            "random": random_state(learner.device),
            "machine": machine(learner.device),
        }

    def restore(self, path: Path, run_id: str, whole_epochs: bool = False) -> bool:
        """Load the newest state that was saved of the run `run_id`; False, and nothing changes, without one.

        Args:
            whole_epochs: ignore that of a running epoch.
        """
        content = newest(path, run_id, whole_epochs)
        if content is None:
            return False
        self.take(content)
        return True

    def take(self, content: Mapping[str, Any]) -> None:
        """Set everything to what a checkpoint holds."""
        self.load(content)
        if note := change_of_machine(content["machine"], machine(self.learner.device)):
            log.warning(note)
            self.moved = True
        self.processes = content["processes"]
        self.stopping.load_state_dict(content["stopping"])
        self.history, self.best = content["history"], content["best"]
        running = content["running"]
        self.running = RunningEpoch.from_state(running, self.learner.device) if running else None
        if self.running and not self.learner.ranks.leads:  # rank 0 has the sums of all processes
            self.running.losses.zero_()
            self.running.correct.zero_()

    def load(self, content: Mapping[str, Any]) -> None:
        """Load what the next step depends on: weights, their average, the optimizer and the random numbers."""
        self.learner.model.load_state_dict(content["model"])
        if self.learner.average:
            self.learner.average.model.load_state_dict(content["average"])
        self.learner.optimizer.load_state_dict(content["optimizer"])
        set_random_state(content["random"], self.learner.device)
