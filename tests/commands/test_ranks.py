"""One model trained by several processes: torchrun --nproc-per-node=2 train.py ..."""

import csv
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import DIGITS, ROOT
from experiments.config import UserError
from experiments.config.arguments import check_command_line
from experiments.config.loading import compose_config
from experiments.experiment import run

KEYS = ("filters", "kernel_size", "dense_width", "blocks", "dropout")
SETTINGS = [
    *(*DIGITS, "model._target_=test_ranks.Net", *(f"~model.{key}" for key in KEYS), "tracking=none"),
    *("augment=strong", "augment.mixup=0", "augment.cutmix=0", "training.ema=0.9", "training.class_weights=balanced"),
    *("training.batch_size=500", "training.epochs=3", "training.checkpoint_minutes=1e-9"),
]
STEPS = 3  # of an epoch: the last batch is smaller, and the processes have different numbers of its images


class Net(nn.Module):
    """Writes a hash of every image that it is trained on, and is killed in the training step that KILL names."""

    steps = 0

    def __init__(self, image_shape, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.GELU())
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, classes)

    def forward(self, images):
        if self.training:
            Net.steps += 1
            rank = os.environ.get("RANK", "0")
            with Path(f"seen{rank}").open("a") as file:
                print(*(hashlib.sha1(image.numpy().tobytes()).hexdigest() for image in images.detach()), file=file)
            if f"{rank}:{Net.steps}" == os.environ.get("KILL"):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.head(self.norm(self.layers(images).mean((2, 3))))


def torchrun(folder, *overrides, options=("--standalone", "--nproc-per-node=2"), **environment):
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", *options, str(ROOT / "train.py")]
    paths = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *launcher, *overrides], cwd=folder, env=os.environ | environment | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process, code):
    """What the processes have printed."""
    output, errors = process.communicate(timeout=200)
    assert process.returncode == code, output + errors
    return output, errors


def epochs(folder):
    """Losses and accuracies of every epoch."""
    (file,) = folder.glob("outputs/runs/*/artifacts/history.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return [float(row[key]) for row in rows for key in row if key.endswith(("loss", "accuracy"))]


def results(folder):
    """The final metrics without times; the processes have agreed on one temperature."""
    (file,) = folder.glob("outputs/runs/*/results.json")
    found = json.loads(file.read_text())
    assert "temperature" in found
    return {name: value for name, value in found.items() if name not in ("seconds", "sha256")}


def weights(folder):
    (file,) = folder.glob("outputs/runs/*/checkpoint.pt")
    content = torch.load(file, weights_only=True)
    return [tensor.numpy().tobytes() for kind in ("model", "average") for tensor in content[kind].values()]


def seen(folder, processes):
    """The images of every step, in their order."""
    lines = [(folder / f"seen{rank}").read_text().splitlines() for rank in range(processes)]
    return [" ".join(step) for step in zip(*lines, strict=True)]


def test_two_processes_train_as_one_and_continue_when_one_was_killed(tmp_path, monkeypatch):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    cut, whole = torchrun(killed, *SETTINGS, KILL=f"1:{STEPS + 3}"), torchrun(two, *SETTINGS)
    one.mkdir()
    monkeypatch.chdir(one)
    run(compose_config(SETTINGS))
    output, errors = ended(cut, 1)
    message = "one of the 2 processes of this run was killed, or does not answer; this continues it:  torchrun"
    assert errors.count(message) == 1 and "stopped" not in errors and output.count("epoch   1/3") == 1
    ended(whole, 0)
    output, _ = ended(torchrun(killed, *SETTINGS), 0)
    assert "after step 1 of 3 of epoch 2" in output
    assert weights(killed) == weights(two) != weights(one)
    assert results(killed) == results(two) == pytest.approx(results(one), abs=1e-3)
    assert epochs(killed) == epochs(two) == pytest.approx(epochs(one), abs=1e-4)
    first, *steps = seen(two, 2)  # one pass before the first step, which changes nothing
    assert first == steps[0] and steps == seen(one, 1) and len(steps) == 3 * STEPS


def test_the_other_machines_say_so_when_the_first_one_is_lost(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machine = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=localhost", f"--master-port={port}")
    first, second = (
        torchrun(tmp_path, *SETTINGS, options=(*machine, f"--node-rank={number}"), KILL=f"0:{STEPS + 3}")
        for number in range(2)
    )
    ended(first, 1)
    _, errors = ended(second, 1)
    assert errors.count("is run was killed, or does not answer; this continues it:  torchrun --nnodes=2 --nproc") == 1


def test_a_mistake_is_printed_once(tmp_path):
    output, errors = ended(torchrun(tmp_path, "training.epochs=0"), 1)  # the exit code of torchrun
    assert errors.count("training.epochs=0: must be") == 1 and not output
    codes = set(re.findall(r"exitcode  : (\S+)", errors))
    assert "2" in codes and codes <= {"2", "130", "-15"}  # torchrun may end the slower process before it exits


def test_a_multirun_is_refused(monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
    with pytest.raises(UserError, match="--multirun: torchrun divides a single run among its processes"):
        check_command_line()
