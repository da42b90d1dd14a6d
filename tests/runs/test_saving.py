"""Checkpoints inside an epoch: a run that ends anywhere in an epoch continues there, to the same bits."""

import csv
import json
import random
import signal
import threading
import time

import pytest
import torch

from conftest import DIGITS
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.training.loop import Diverged
from samples import paint

STEPS = 19  # of an epoch of the digits
TIMED = ("epoch_seconds", "images_per_second", "seconds")
EVERY_STEP = "training.checkpoint_minutes=1e-9"


class Killed(BaseException):
    """Ends a process as SIGKILL does: nobody handles it."""


class Net(torch.nn.Module):
    """Calls `happens` in the forward pass of the training step number `after`, and `evaluated` in those of evaluations."""

    after, happens, evaluated = 0, None, staticmethod(lambda: None)

    def __init__(self, image_shape, classes):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 5, stride=3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.dropout = torch.nn.Dropout(0.2)
        self.head = torch.nn.LazyLinear(classes)
        self.head(self.first(torch.zeros(1, *image_shape)).flatten(1))

    def forward(self, images):
        hidden = self.norm(self.first(images)).relu()  # changes the running statistics: the step has begun
        if self.training:
            Net.after -= 1
            if Net.after == 0:
                Net.happens(self)
        else:
            Net.evaluated()
        return self.head(self.dropout(hidden.flatten(1)))


KEYS = ("filters", "kernel_size", "dense_width", "blocks", "dropout")
BASE = [
    *("model._target_=test_saving.Net", *(f"~model.{key}" for key in KEYS)),
    *("tracking=none", "early_stopping.patience=null", "training.batch_size=64", "threads=1"),
]
SMALL = [*DIGITS, *BASE, "training.epochs=2"]
STATEFUL = [
    *("augment=strong", "augment.crop=0.3", "augment.brightness=0.2", "augment.mixup=0.3", "optimizer=muon"),
    *("schedule=onecycle", "training.ema=0.9", "training.epochs=3", "training.gradient_clip=1"),
]


def train(*overrides, after=0, happens=None):
    """Train until `happens` is called in step `after`, counted over this call."""
    Net.after, Net.happens, Net.evaluated = after, staticmethod(happens), staticmethod(lambda: None)
    return run(compose_config(list(overrides)))


def die(*_):
    raise Killed


def interrupt(*_):
    signal.raise_signal(signal.SIGINT)


def content(folder):
    """All that a run of this folder computed, without times."""
    (path,) = folder.glob("outputs/runs/*/checkpoint.pt")
    saved = torch.load(path, weights_only=True)
    for epoch in saved["history"]:
        for name in TIMED:
            epoch.pop(name, None)
    return plain(
        {key: saved[key] for key in ("model", "average", "best", "optimizer", "stopping", "history", "random")}
    )


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def inside(folder):
    """The checkpoint of a running epoch, or None."""
    paths = list(folder.glob("outputs/runs/*/checkpoint-inside-epoch.pt"))
    return paths[0] if paths else None


def steps_done(folder):
    return torch.load(inside(folder), weights_only=True)["running"]["step"]


def final(result):
    rows = [result.metrics, *result.history]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def pictures(folder):
    """A folder of pictures, whose file is streamed if small files count as large."""
    for number, name in enumerate(("cat", "dog", "emu")):
        paint(folder / "pictures", name, 40, 1000 * number, size=24)
    return ["data=image_folder", f"data.root={folder / 'pictures'}", "training.batch_size=8", *BASE]


@pytest.mark.slow
@pytest.mark.numbers
@pytest.mark.parametrize("streamed", [False, True])
def test_killed_inside_epochs_again_and_again_it_ends_in_the_same_bits(streamed, tmp_path, monkeypatch, capsys):
    data = [*DIGITS, *BASE]
    if streamed:
        monkeypatch.setattr("experiments.data.pixels.LARGE", 1000)
        data = [*pictures(tmp_path), "data.image_size=24", "training.batch_size=4"]
    moments = random.Random(888)
    outcomes = []
    kills, wanted = 0, 10
    while kills < wanted or len(outcomes) < 2:
        folder = tmp_path / str(len(outcomes))
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        interval = moments.choice([1e-9, 1e-4])  # minutes: after every step, or after some of them
        try:
            after = moments.randrange(2, 40) if outcomes and kills < wanted else 0
            result = train(*data, *STATEFUL, f"training.checkpoint_minutes={interval}", after=after, happens=die)
        except Killed:
            kills += 1
            continue
        outcomes.append((content(folder), final(result)))
        assert inside(folder) is None
    assert ("streamed from disk" in capsys.readouterr().out) is streamed
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])


def test_a_killed_run_continues_after_the_step_of_its_last_checkpoint(here, capsys):
    with pytest.raises(Killed):
        train(*SMALL, EVERY_STEP, after=STEPS + 8, happens=die)
    assert steps_done(here) == 7
    capsys.readouterr()
    result = train(*SMALL, EVERY_STEP)
    out = capsys.readouterr().out
    assert f"after step 7 of {STEPS} of epoch 2\n" in out and "epoch   1/2" not in out and "epoch   2/2" in out
    assert len(result.history) == 2


def test_inside_the_first_epoch_it_continues_too(here, capsys):
    with pytest.raises(Killed):
        train(*SMALL, EVERY_STEP, after=5, happens=die)
    capsys.readouterr()
    train(*SMALL)
    assert f"after step 4 of {STEPS} of epoch 1\n" in capsys.readouterr().out


def test_the_parts_of_an_epoch_are_one_epoch(here):
    whole = train(*SMALL, "training.checkpoint_minutes=null", "seed=1").history[0]
    with pytest.raises(Killed):
        train(*SMALL, EVERY_STEP, after=STEPS - 1, happens=die)
    saved = torch.load(inside(here), weights_only=True)["running"]
    done = -saved["started"]
    epoch = train(*SMALL).history[0]
    images = epoch["images_per_second"] * epoch["epoch_seconds"]
    assert epoch["epoch_seconds"] > done > 0
    assert images == pytest.approx(whole["images_per_second"] * whole["epoch_seconds"])


@pytest.mark.parametrize("minutes", ["null", "10"])
def test_nothing_is_written_more_often_than_asked(minutes, here):
    with pytest.raises(Killed):
        train(*SMALL, f"training.checkpoint_minutes={minutes}", after=2 * STEPS, happens=die)
    assert inside(here) is None and list(here.glob("outputs/runs/*/checkpoint.pt"))


def test_another_interval_is_the_same_run(here):
    first = train(*SMALL, "training.checkpoint_minutes=null")
    files = list(here.glob("outputs/runs/*"))
    assert train(*SMALL, EVERY_STEP).metrics == first.metrics
    assert list(here.glob("outputs/runs/*")) == files


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_step_and_nothing_is_trained_again(number, here, monkeypatch):
    before = {each: signal.getsignal(each) for each in (*signal.Signals,)}
    signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(*SMALL, after=STEPS + 5, happens=lambda _: signal.raise_signal(number))
    finally:
        signal.signal(number, before[number])
    assert {each: signal.getsignal(each) for each in before} == before
    assert steps_done(here) == 5
    seen = []
    end = train(*SMALL, after=STEPS - 5, happens=lambda _: seen.append(Net.after))
    assert seen == [0] and Net.after == 0  # exactly the steps that were left
    whole = here / "whole"
    whole.mkdir()
    monkeypatch.chdir(whole)
    assert final(train(*SMALL)) == final(end) and content(whole) == content(here)


def test_without_checkpoints_inside_epochs_a_signal_acts_at_once(here):
    with pytest.raises(KeyboardInterrupt):
        train(*SMALL, "training.checkpoint_minutes=null", after=STEPS + 5, happens=interrupt)
    assert inside(here) is None


def test_a_second_interrupt_does_not_wait_for_the_step(here):
    def twice(_):
        interrupt()
        interrupt()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        train(*SMALL, after=STEPS + 5, happens=twice)
    assert inside(here) is None  # half a step is not saved


def test_a_step_that_does_not_end_is_not_waited_for(here, monkeypatch):
    monkeypatch.setattr("experiments.runs.saving.GRACE", 1)
    never = threading.Event()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(*SMALL, after=STEPS + 5, happens=lambda _: [interrupt(), never.wait(60)])
    assert time.monotonic() - started < 30 and inside(here) is None


def test_a_signal_during_validation_keeps_all_steps(here, capsys, monkeypatch):
    decaying = (*SMALL, "schedule=cosine")
    with pytest.raises(KeyboardInterrupt):
        train(*decaying, after=1, happens=lambda _: setattr(Net, "evaluated", interrupt))
    assert steps_done(here) == STEPS
    seen = []
    end = train(*decaying, after=1, happens=lambda _: seen.append(content(here)["history"]))
    assert len(seen[0]) == 1  # the first step is one of the second epoch
    assert f"after step {STEPS} of {STEPS} of epoch 1\n" in capsys.readouterr().out
    whole = here / "whole"
    whole.mkdir()
    monkeypatch.chdir(whole)
    assert final(train(*decaying)) == final(end)


def test_a_damaged_checkpoint_inside_an_epoch_is_not_believed(here, caplog, monkeypatch):
    with pytest.raises(Killed):
        train(*SMALL, EVERY_STEP, after=STEPS + 8, happens=die)
    path = inside(here)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    seen = []
    end = train(*SMALL, after=1, happens=lambda _: seen.append(content(here)["history"]))
    assert "checkpoint-inside-epoch.pt is damaged and not used: the epoch starts again" in caplog.text
    assert len(seen[0]) == 1
    whole = here / "whole"
    whole.mkdir()
    monkeypatch.chdir(whole)
    assert final(train(*SMALL)) == final(end)


def test_a_run_that_diverges_in_an_epoch_keeps_the_epoch_before(here):
    """Not the weights of the checkpoint inside the epoch."""
    with pytest.raises(Diverged, match=r"loss is nan in epoch 2, step 5; .* epoch 1 and its report are kept"):
        train(
            *(*SMALL, EVERY_STEP, "early_stopping.restore_best=false"),
            after=STEPS + 5,
            happens=lambda net: net.head.bias.data.fill_(torch.nan),
        )
    (artifacts,) = here.glob("outputs/runs/*/artifacts")
    with (artifacts / "history.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    report = json.loads((artifacts / "classification_report.json").read_text())
    assert report["accuracy"] == float(epoch["val/accuracy"])
