"""A run killed at any moment: the same command continues it to the numbers of a run without interruption."""

import contextlib
import os
import random
import signal
import time

import pytest
import torch
from mlflow import MlflowClient

from conftest import DIGITS, typed
from experiments.config.loading import compose_config
from experiments.experiment import run

RUN = [*DIGITS, "training.epochs=6", "early_stopping.patience=4", "model.filters=8", "model.dropout=0.2"]
WEIGHTS = ("best", "model", "average")
KILLS = int(os.environ.get("KILLS", "4"))


# Everything that has a state, or depends on the step, and must not start again.
STATEFUL = [
    *("model.filters=8", "model.dropout=0.2", "optimizer=muon", "schedule=onecycle", "training.ema=0.9"),
    *("training.label_smoothing=0.1", "training.gradient_clip=1", "evaluation.tta=flip", "training.epochs=4"),
]


def test_a_run_stopped_half_way_continues_where_it_was(tmp_path, monkeypatch):
    """Stopped after its checkpoint, as by a kill, and restored from the file."""
    outcomes = []
    for name, moments in (("whole", [9]), ("cut", [1, 3, 9])):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        for last in moments:
            settings = compose_config([*DIGITS, "tracking=none", "early_stopping.patience=null", *STATEFUL])
            result = run(settings, should_prune=lambda epoch, _, last=last: epoch == last)
        assert not result.pruned and len(result.history) == 4
        (saved,) = folder.glob("outputs/runs/*/checkpoint.pt")
        content = torch.load(saved, weights_only=True)
        weights = {kind: {key: value.numpy().tobytes() for key, value in content[kind].items()} for kind in WEIGHTS}
        losses = [[epoch[key] for key in ("train/loss", "val/loss", "learning_rate")] for epoch in result.history]
        outcomes.append((weights, losses, result.metrics["test/loss"]))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]["average"] != outcomes[0][0]["model"]


def work(folder):
    """The body of a process that may be killed anywhere."""
    os.chdir(folder)
    with contextlib.redirect_stdout(None):
        run(compose_config(RUN))


def the_run(folder):
    """(client, run): the only one there."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (only,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    return client, only


def outcome(folder):
    """All that must not depend on interruptions: metrics of every epoch, final ones, and the weights' digest."""
    client, only = the_run(folder)
    assert only.info.status == "FINISHED"
    assert len(client.search_logged_models([only.info.experiment_id])) == 1
    assert only.data.tags["test_set_evaluations"] == "1" and len(only.inputs.dataset_inputs) == 3
    timed = ("epoch_seconds", "images_per_second", "seconds")
    metrics = {
        name: [
            (metric.step, metric.value * (name not in timed))
            for metric in client.get_metric_history(only.info.run_id, name)
        ]
        for name in only.data.metrics
    }
    (saved,) = folder.glob("outputs/runs/*/checkpoint.pt")
    content = torch.load(saved, weights_only=True)
    weights = {
        kind: {name: tensor.numpy().tobytes() for name, tensor in content[kind].items()} for kind in ("best", "model")
    }
    return metrics, weights


@pytest.fixture(scope="module")
def uncut(start, tmp_path_factory):
    """(outcome, seconds) of a run without interruption."""
    folder = tmp_path_factory.mktemp("uncut")
    started = time.monotonic()
    process = start(work, folder)
    process.join()
    assert process.exitcode == 0
    return outcome(folder), time.monotonic() - started


def killed(place, seconds, begin):
    """Start runs and kill them at seeded moments, `KILLS` times in all; yields the folder of each run that ended."""
    moments = random.Random(888)
    kills = runs = 0
    while kills < KILLS or runs == 0:
        folder = place / str(runs)
        folder.mkdir(exist_ok=True)
        process = begin(folder)
        process.join(moments.uniform(0, seconds) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
            yield folder
            runs += 1


def test_killed_again_and_again_it_ends_in_the_same_bits(start, uncut, tmp_path):
    """The first kills hit the making of the store, too."""
    expected, seconds = uncut
    for folder in killed(tmp_path, seconds, lambda folder: start(work, folder)):
        assert outcome(folder) == expected


LONG = [  # an epoch of 1,200 steps, with everything that is drawn
    *(*DIGITS, "tracking=none", "model.filters=4", "model.dense_width=8", "model.dropout=0.2", "training.batch_size=1"),
    *("training.epochs=2", "training.ema=0.99", "schedule=onecycle", "augment=strong", "augment.crop=0.3"),
    *("augment.brightness=0.2", "augment.mixup=0.3"),
]


def work_inside(folder, minutes):
    os.chdir(folder)
    with open("output.txt", "a") as file, contextlib.redirect_stdout(file):  # noqa: PTH123
        from experiments.reports import terminal

        terminal.console.file = file
        run(compose_config([*LONG, f"training.checkpoint_minutes={minutes}"]))


def content(folder):
    """What the run of a folder has computed, without times."""
    (saved,) = folder.glob("outputs/runs/*/checkpoint.pt")
    found = torch.load(saved, weights_only=True)
    weights = {kind: {name: tensor.numpy().tobytes() for name, tensor in found[kind].items()} for kind in WEIGHTS}
    metrics = [[value for name, value in epoch.items() if "second" not in name] for epoch in found["history"]]
    return weights, metrics, found["random"]["cpu"].numpy().tobytes()


def test_killed_inside_its_epochs_it_ends_in_the_same_bits(start, tmp_path):
    (tmp_path / "whole").mkdir()
    started = time.monotonic()
    process = start(work_inside, tmp_path / "whole", "null")
    process.join()
    assert process.exitcode == 0
    seconds, expected = time.monotonic() - started, content(tmp_path / "whole")
    inside = 0
    for folder in killed(tmp_path, seconds, lambda folder: start(work_inside, folder, 1e-3)):
        assert content(folder) == expected
        inside += (folder / "output.txt").read_text().count("of 1,200 of epoch")
    assert inside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_inside_an_epoch_continues_there(number, start, ready_store, tmp_path):
    ready_store(tmp_path)
    overrides = [text for text in LONG if text != "tracking=none"]
    process = start(typed, tmp_path, *overrides, "training.checkpoint_minutes=1e-3")
    while not list(tmp_path.glob("outputs/runs/*/checkpoint-inside-epoch.pt")):
        process.join(0.1)
        assert process.exitcode is None
    os.kill(process.pid, number)
    started = time.monotonic()
    process.join()
    assert process.exitcode == 130 and time.monotonic() - started < 60
    assert the_run(tmp_path)[1].info.status == "KILLED"
    process = start(typed, tmp_path, *overrides, "training.checkpoint_minutes=null")
    process.join()
    printed = (tmp_path / "output.txt").read_text()
    assert process.exitcode == 0 and "this continues it:  python train.py" in printed and "Traceback" not in printed
    assert "of 1,200 of epoch" in printed and printed.count("epoch   1/2") == 1
    history = the_run(tmp_path)[0].get_metric_history(the_run(tmp_path)[1].info.run_id, "val/loss")
    assert [value.step for value in history] == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_prints_how_to_continue(number, start, ready_store, tmp_path):
    ready_store(tmp_path)
    process = start(typed, tmp_path, *DIGITS, "training.epochs=1000", "early_stopping.patience=null")
    printed = tmp_path / "output.txt"
    while not printed.exists() or "epoch   2" not in printed.read_text():
        process.join(0.1)
        assert process.exitcode is None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    assert "python train.py data=digits" in printed.read_text() and "Traceback" not in printed.read_text()
    assert the_run(tmp_path)[1].info.status == "KILLED"
    assert list(tmp_path.glob("outputs/runs/*/checkpoint.pt"))


def test_a_run_that_diverges_is_marked_and_says_so_in_one_message(start, ready_store, tmp_path):
    ready_store(tmp_path)
    process = start(typed, tmp_path, *DIGITS, "optimizer=sgd", "optimizer.lr=100")
    process.join()
    printed = (tmp_path / "output.txt").read_text()
    assert process.exitcode == 1
    assert "Traceback" not in printed and "epoch 1, step" in printed.splitlines()[-1]
    assert "try optimizer.lr below 100" in printed.splitlines()[-1]
    assert the_run(tmp_path)[1].info.status == "FAILED"
