"""A run that continues another one ends in the same bits as one that is trained from its first epoch."""

import contextlib
import hashlib
import os

import pytest
import torch
from mlflow import MlflowClient

from conftest import DIGITS
from experiments.config.keys import late_keys
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs.pool import Pool
from experiments.runs.provenance import ParentRun

EPOCHS = 4
BASE = [  # everything that has a state or is drawn
    *(*DIGITS, "tracking=none", "data.validation_size=1200", "training.batch_size=64", f"training.epochs={EPOCHS}"),
    *("optimizer=muon", "training.ema=0.9", "training.sampler=balanced", "augment=strong", "augment.mixup=0.3"),
    "early_stopping.patience=null",
]
SMALL, ANY_SIZE = ["model.filters=2", "model.dense_width=8"], ["model=fastnet", "model.widths=[4,8]"]
STEP, UP = ["schedule=step", "schedule.every=2"], ["schedule=triangular", "schedule.peak=0.5"]
STUCK = ["early_stopping.min_delta=10"]  # no epoch is an improvement
CASES = {  # key: (other overrides of both runs, values of the first and the second, epochs that they share)
    "training.epochs": ([], 3, 5, 3),
    "training.image_sizes": (ANY_SIZE, "[24,24]", "[24,28]", 1),
    "training.unfreeze_epoch": ([*ANY_SIZE, "training.freeze=[blocks.1]"], 3, 2, 1),
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
    "evaluation.calibrate": ([], "true", "false", EPOCHS),
}


def train(folder, *overrides):
    """Train a run that shares its epochs in `folder`; it is stopped without a report when it has trained its last epoch."""
    network = [] if "model=fastnet" in overrides else SMALL
    config = compose_config([*BASE, f"outputs={folder}", *network, *overrides])
    before = Pool(folder / "pool").totals.trained

    def stop(epoch, _):
        if Pool(folder / "pool").totals.trained > before and epoch == config.training.epochs:
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


@pytest.mark.parametrize("damage", ["record", "checkpoints", "no space"])
def test_what_is_missing_is_trained(damage, tmp_path):
    """Without disk space for checkpoints of single epochs, the last one of a run is left."""
    forked, whole = tmp_path / "forked", tmp_path / "whole"
    space = ["sweep.checkpoints_gb=0"] if damage == "no space" else []
    train(forked, "training.epochs=2", *space)
    if damage == "record":
        (record,) = forked.glob("trunks/*/*.json")
        record.write_text(record.read_text().replace('"training.epochs": 2', '"training.epochs": 3'))
    elif damage == "checkpoints":
        for file in [*forked.glob("runs/*/checkpoint.pt"), *forked.glob("pool/checkpoints/*/*.pt")]:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.unlink()  # a link to it stays whole
            file.write_bytes(content)
    late = ["training.epochs=3", *space]
    config, expected = train(forked, *late), train(whole, *late)
    assert bits(forked, config) == bits(whole, expected)
    assert Pool(forked / "pool").totals.saved == (2 if damage == "no space" else 0)


def test_an_epoch_that_is_trained_again_after_a_kill_is_counted_once(tmp_path):
    for _ in range(2):
        Pool(tmp_path).count("trained", "run", 1)
    assert Pool(tmp_path).totals == (1, 0)


def test_the_oldest_checkpoints_go_first(tmp_path):
    pool = Pool(tmp_path, gigabytes=25e-9)
    for epoch in range(1, 5):
        checkpoint = tmp_path / str(epoch)
        checkpoint.write_bytes(bytes(10))
        os.utime(checkpoint, (epoch, epoch))
        pool.keep(f"run{epoch % 2}", epoch, checkpoint)
    assert pool.files("run0").keys() | pool.files("run1").keys() == {3, 4}
    pool.delete()
    assert not pool.files("run0") and (tmp_path / "4").exists()


def test_a_longer_run_continues_a_finished_one_and_leaves_it_alone(tracked, capsys):
    """As a user sees it: one line, a tag, the whole history, and the numbers of a run from its first epoch."""
    small = [*(text for text in BASE if text not in ("tracking=none", f"training.epochs={EPOCHS}")), *SMALL]
    first = run(compose_config([*small, "training.epochs=1"]))
    before = MlflowClient(f"sqlite:///{tracked}/mlflow.db").get_run(first.run_id).to_dictionary()
    capsys.readouterr()
    second = run(compose_config([*small, "training.epochs=2"]))
    assert f"continues run {first.run_id[:8]} from epoch 1" in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    assert client.get_run(second.run_id).data.tags["forked_from"] == f"{first.run_id}:1"
    assert [each.step for each in client.get_metric_history(second.run_id, "val/loss")] == [1, 2]
    assert client.get_run(first.run_id).to_dictionary() == before and first.history == second.history[:1]
    anew = run(compose_config([*small, "training.epochs=2", "resume=false"]))
    timed = ("seconds", "epoch_seconds", "images_per_second")
    assert [{key: epoch[key] for key in epoch.keys() - timed} for epoch in anew.history] == [
        {key: epoch[key] for key in epoch.keys() - timed} for epoch in second.history
    ]
    assert {key: anew.metrics[key] for key in anew.metrics.keys() - timed} == {
        key: second.metrics[key] for key in second.metrics.keys() - timed
    }
    assert "continues run" not in capsys.readouterr().out


def test_it_says_why_a_shorter_run_cannot_be_continued(here, capsys):
    def printed(last, *overrides):
        """What a run prints that is stopped after the epoch `last`."""
        capsys.readouterr()
        assert run(compose_config([*BASE, *SMALL, *overrides]), should_prune=lambda epoch, _: epoch == last).pruned
        return capsys.readouterr().out

    printed(1, "schedule=cosine", "training.epochs=2")
    text = printed(1, "schedule=cosine", "training.epochs=3")
    assert "schedule=cosine stretches over all epochs, so run " in text
    assert "with training.epochs=2 cannot be continued" in text
    printed(1, "training.epochs=2")
    text = printed(2, "training.epochs=3", "threads=2")
    assert "cannot be continued with 2 CPU threads: it was trained with 1 CPU thread" in text
    printed(3, *STEP, "seed=1")
    text = printed(1, *STEP, "schedule.every=1", "seed=1")
    assert "schedule.every=1 acts from epoch 2 on, so run" in text and "schedule.every=2 and 3 epochs cannot be" in text
