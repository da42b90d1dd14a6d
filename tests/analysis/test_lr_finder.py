"""The learning rate that a range test finds, and the command that prints it."""

import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import DIGITS, ROOT
from experiments.analysis import batch_finder, lr_finder
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.batches import Batches
from experiments.training.evaluation import evaluate
from experiments.training.learner import Learner, initial_model

CPU = torch.device("cpu")


def test_the_suggested_learning_rate_is_better_than_others_far_from_it():
    found = lr_finder.range_test(compose_config(DIGITS), 1e-6, 10, 200)
    assert len(found.learning_rates) == len(found.losses) == len(found.smoothed) < 200
    assert found.smoothed[0] == found.losses[0] and (np.diff(found.learning_rates) > 0).all()
    accuracies = []
    for times in (1, 0.01, 100):
        settings = compose_config([*DIGITS, f"optimizer.lr={found.suggestion * times}"])
        splits = load_splits(settings.data)
        learner = Learner.create(settings, initial_model(settings, splits), splits.train, CPU)
        learner.model.train()
        for batch in Batches(splits.train, 32, CPU, "shuffle"):
            learner.step(batch, 1)
        accuracies.append(evaluate(learner.model, Batches(splits.validation, 250, CPU), learner.autocast).accuracy)
    assert accuracies[0] > max(accuracies[1:]) + 0.1


def test_learning_rates_that_are_all_too_large_are_an_error():
    settings = compose_config([*DIGITS, "optimizer=sgd"])
    with pytest.raises(UserError, match="no learning rate from 50 to 100 made the loss smaller"):
        lr_finder.range_test(settings, 50, 100, 20)


class Undeterministic(torch.nn.Linear):
    """With an operation that has no deterministic implementation on a CPU either."""

    def __init__(self, image_shape, classes):
        super().__init__(3 * 32 * 32, classes)

    def forward(self, images):
        torch.zeros(1).put_(torch.tensor([0]), torch.ones(1))
        return super().forward(images.flatten(1))


def test_it_computes_with_deterministic_algorithms_if_a_run_would(monkeypatch):
    """And so does the search for the largest batch."""
    monkeypatch.setattr(batch_finder, "limit_memory", lambda: None)  # of this process
    keys = ("filters", "kernel_size", "dense_width", "blocks", "dropout")
    own = ["model._target_=test_lr_finder.Undeterministic", *(f"~model.{key}" for key in keys)]
    assert lr_finder.range_test(compose_config([*DIGITS, *own]), 1e-6, 1, 20).suggestion
    assert batch_finder.computes(compose_config([*DIGITS, *own]))
    deterministic = compose_config([*DIGITS, *own, "deterministic=true"])
    for compute in (
        lambda: lr_finder.range_test(deterministic, 1e-6, 1, 20),
        lambda: batch_finder.computes(deterministic),
    ):
        with pytest.raises(UserError, match="deterministic=true: put_ has no deterministic implementation"):
            compute()


def test_the_command_prints_what_to_type_and_draws_the_curve(here, monkeypatch, capsys):
    small = ("model.filters=4", "model.dense_width=16", "optimizer.lr=0.5", "optimizer=muon")
    monkeypatch.setattr(sys, "argv", ["find_lr.py", *DIGITS, "--steps", "100", *small])
    runpy.run_path(str(ROOT / "scripts" / "find_lr.py"), run_name="__main__")
    picture, command = capsys.readouterr().out.splitlines()
    assert Image.open(here / picture).size > (500, 300) and picture == "outputs/find_lr/digits_CNN_muon_32.png"
    assert re.fullmatch(
        r"python train\.py data=digits threads=1 model\.filters=4 model\.dense_width=16 optimizer=muon "
        r"optimizer\.lr=[\d.e-]+ optimizer\.adam_lr=[\d.e-]+",
        command,
    )
    found = compose_config(shlex.split(command)[2:]).optimizer
    assert found.adam_lr / found.lr == pytest.approx(0.003 / 0.5, rel=0.1)
    assert not (here / "mlflow.db").exists()
