"""The state of training, and its checkpoint: one file of plain containers and tensors, from which a run continues."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import Config
from experiments.config.command_line import mask_passwords
from experiments.config.metrics import BEST
from experiments.data import Splits
from experiments.files.atomic import atomic_write
from experiments.models.classifier import Classifier
from experiments.training.early_stopping import EarlyStopping
from experiments.training.learner import Learner
from experiments.training.loop import EpochResult

ShouldPrune = Callable[[int, Mapping[str, float]], bool]  # number and metrics of an epoch -> stop after it
FORMAT = 2
log = logging.getLogger(__name__)


@dataclass
class State:
    """Everything that training changes.

    Attributes:
        learner: has the model, its optimizer, and the average of its weights if there is one.
        history: the metrics of each epoch so far.
        best: the weights of the best epoch, on the CPU; None if the run keeps those of its last epoch.
        pruned: a pruner has stopped the training.
    """

    learner: Learner
    stopping: EarlyStopping
    history: list[dict[str, float]]
    best: dict[str, Tensor] | None
    pruned: bool = False

    @classmethod
    def fresh(cls, learner: Learner) -> State:
        """The state before the first epoch."""
        return cls(learner, EarlyStopping(learner.config.early_stopping), [], None)

    @property
    def remaining(self) -> range:
        """The epochs still to train, counted from 1; none after early stopping or pruning."""
        epochs = self.learner.config.training.epochs
        return range(0) if self.stopping.stopped or self.pruned else range(len(self.history) + 1, epochs + 1)

    def update(self, epoch: EpochResult) -> bool:
        """Add the results of an epoch; True if early stopping ends the training after it."""
        self.history.append(epoch.metrics)
        stop = self.stopping.update(epoch.epoch, epoch.metrics)
        if self.stopping.settings.restore_best and self.stopping.best_epoch == epoch.epoch:
            weights = self.learner.eval_model.state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        return stop

    def prune(self, should_prune: ShouldPrune, first_epoch: int) -> bool:
        """Ask a pruner about every epoch from `first_epoch` on; True if it ends the training after the last one."""
        answers = [should_prune(epoch, self.history[epoch - 1]) for epoch in range(first_epoch, len(self.history) + 1)]
        self.pruned = any(answers[-1:]) and len(self.remaining) > 0
        return self.pruned

    def results(self) -> dict[str, float]:
        """The final metrics of training; `seconds` is the sum over all epochs."""
        best = self.history[self.stopping.best_epoch - 1]
        return {
            "best/epoch": self.stopping.best_epoch,
            **{final: best[name] for name, final in BEST.items()},
            "parameters": sum(parameter.numel() for parameter in self.learner.model.parameters()),
            "seconds": sum(epoch["epoch_seconds"] for epoch in self.history),
        }

    def final_model(self) -> Classifier:
        """The model with the weights to keep, in evaluation mode."""
        model = self.learner.eval_model
        if self.best is not None:
            model.load_state_dict(self.best)
        return model.eval()

    def save(self, path: Path, run_id: str, config: Config, splits: Splits) -> None:
        """Write the state; if the process or the machine stops, `path` has either this state or the previous one."""
        learner = self.learner
        content = {
            "format": FORMAT,
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
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }
        with atomic_write(path) as file:
            torch.save(content, file)

    def restore(self, path: Path, run_id: str) -> bool:
        """Load the state that `path` has of the run `run_id`; False, and nothing changes, if it has none."""
        content = _load(path)
        if content is None or content["run_id"] != run_id:
            return False
        self.learner.model.load_state_dict(content["model"])
        if self.learner.average:
            self.learner.average.model.load_state_dict(content["average"])
        self.learner.optimizer.load_state_dict(content["optimizer"])
        self.stopping.load_state_dict(content["stopping"])
        self.history, self.best = content["history"], content["best"]
        torch.set_rng_state(content["random"]["cpu"])
        if torch.cuda.is_available() and content["random"]["cuda"]:
            torch.cuda.set_rng_state_all(content["random"]["cuda"])
        return True


def _load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, on the CPU; None if there is no usable file. Only tensors and containers: no code can run."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        log.warning("%s is damaged and not used: training starts from its first epoch (%s)", path, error)
        return None
    return content if content["format"] == FORMAT else None
