"""A run that continues another one ends in the same bits as one that is trained from its first epoch."""

import contextlib
import hashlib

import pytest
import torch

from conftest import DIGITS
from experiments.config.keys import late_keys
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs.pool import Pool
from experiments.runs.provenance import ParentRun

EPOCHS = 4
BASE = [  # everything that has a state or is drawn
    *(*DIGITS, "tracking=none", "data.validation_size=1200", "training.batch_size=64", f"training.epochs={EPOCHS}"),
    *("model=fastnet", "model.widths=[4,8]", "optimizer=muon", "training.ema=0.9", "training.sampler=balanced"),
    *("augment=strong", "augment.mixup=0.3", "early_stopping.patience=null"),
]
STEP, UP = ["schedule=step", "schedule.every=2"], ["schedule=triangular", "schedule.peak=0.5"]
FROZEN, STUCK = ["training.freeze=[blocks.1]", "training.unfreeze_epoch=2"], ["early_stopping.min_delta=10"]
CASES = {  # key: (other overrides of both runs, values of the first and the second, epochs that they share)
    "training.epochs": ([], 3, 5, 3),
    "training.image_sizes": ([], "[24,24]", "[24,28]", 1),
    "training.unfreeze_epoch": (FROZEN, 3, 2, 1),
    "schedule.name": ([], "constant", "step schedule.every=2", 2),
    "schedule.start": ([], 0.0, 0.5, EPOCHS),
    "schedule.warmup": (["schedule.start=1"], 1, 2, EPOCHS),
    "schedule.every": (STEP, 2, 3, 2),
    "schedule.factor": (STEP, 0.1, 0.5, 2),
    "schedule.peak": ([*UP, "schedule.start=1"], 0.5, 0.75, 2),
    "schedule.end": (UP, 0.0, 0.1, 2),
    "early_stopping.patience": (STUCK, 1, 2, 2),
    "early_stopping.min_delta": (["early_stopping.patience=3"], 0, 10, EPOCHS),
    "early_stopping.monitor": ([], "val/loss", "train/loss", EPOCHS),
    "early_stopping.restore_best": ([], "false", "true", EPOCHS),
    "evaluation.tta": ([], "none", "flip_shift", EPOCHS),
}


def train(folder, *overrides):
    """Train a run that shares its epochs in `folder`, without a report if it is trained to its last epoch."""
    config = compose_config([*BASE, f"outputs={folder}", *overrides])

    def stop(epoch, _):
        if epoch == config.training.epochs:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run(config, parent=ParentRun(None, "a", folder=folder / "pool", forks=True), should_prune=stop)
    return config


def bits(folder, config):
    """SHA-256 of all that the run of `config` has computed."""
    for file in folder.glob("runs/*/checkpoint.pt"):
        content = torch.load(file, weights_only=True)
        if content["config"] == config.to_dict() | {"outputs": str(folder)}:
            return digest({name: content[name] for name in content.keys() - {"config", "run_id"}})
    raise AssertionError("it has no checkpoint")


def digest(value):
    if isinstance(value, dict):
        kept = sorted(key for key in value if "second" not in key)
        value = [(key, digest(value[key])) for key in kept]
    elif isinstance(value, list):
        value = list(map(digest, value))
    elif isinstance(value, torch.Tensor):
        value = value.numpy().tobytes()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def test_every_setting_that_acts_late_is_tested():
    assert CASES.keys() == late_keys().keys()


@pytest.mark.parametrize("key", CASES)
def test_the_bits_are_those_of_a_run_from_its_first_epoch(key, tmp_path):
    others, *values, shared = CASES[key]
    first, second = ([*others, *f"{key.removesuffix('.name')}={value}".split()] for value in values)
    forked, whole = tmp_path / "forked", tmp_path / "whole"
    train(forked, *first)
    before = Pool(forked / "pool").totals
    config = train(forked, *second)
    assert Pool(forked / "pool").totals.saved == shared
    expected = train(whole, *second)
    assert bits(forked, config) == bits(whole, expected)
    assert Pool(whole / "pool").totals.trained == shared + Pool(forked / "pool").totals.trained - before.trained
