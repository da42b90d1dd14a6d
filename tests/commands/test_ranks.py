"""One model trained by several processes: torchrun --nproc-per-node=2 train.py ..."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from conftest import DIGITS, ROOT

NETWORK = """
import hashlib, os, signal
from torch import nn

RANK = os.environ.get("RANK", "0")


class Net(nn.Module):
    steps = 0

    def __init__(self, image_shape, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 16, 3, stride=2, bias=False))
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, classes)

    def forward(self, images):
        if self.training:
            Net.steps += 1
            with open(f"seen{RANK}", "a") as file:
                print(*(hashlib.md5(image.detach().contiguous().numpy()).hexdigest() for image in images), file=file)
            if RANK + ":" + str(Net.steps) == os.environ.get("KILL"):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.head(self.norm(self.layers(images).mean((2, 3))))
"""
SETTINGS = [
    *("model=mine", "tracking=none", "augment=strong", "augment.mixup=0", "augment.cutmix=0", "training.ema=0.9"),
    *(
        "training.batch_size=500",
        "training.epochs=3",
        "training.checkpoint_minutes=1e-9",
        "training.class_weights=balanced",
    ),
]
STEPS = 3  # of an epoch: 500, 500 and 257 images, of which each process has another number


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function that gives a new folder with the network."""

    def make(name):
        place = tmp_path_factory.mktemp(name)
        (place / "networks.py").write_text(NETWORK)
        (place / "mine/model").mkdir(parents=True)
        (place / "mine/model/mine.yaml").write_text("_target_: networks.Net\nweights: null\n")
        return place

    return make


def type_command(folder, processes, *overrides, **environment):
    """`python train.py` or `torchrun train.py`, as a user types it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [
        sys.executable,
        *launcher,
        str(ROOT / "train.py"),
        "--config-dir",
        "mine",
        *DIGITS,
        *SETTINGS,
        *overrides,
    ]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process, code):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == code, output + errors
    return output, errors


def epochs(folder):
    """Losses and accuracies of every epoch."""
    (file,) = folder.glob("outputs/runs/*/artifacts/history.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return [float(row[key]) for row in rows for key in row if key.endswith(("loss", "accuracy"))]


def weights(folder):
    (file,) = folder.glob("outputs/runs/*/checkpoint.pt")
    content = torch.load(file, weights_only=True)
    return {
        (kind, name): tensor.numpy().tobytes()
        for kind in ("model", "average")
        for name, tensor in content[kind].items()
    }


def seen(folder, processes):
    """The images of every step, in their order; those of several processes one after another."""
    lines = [(folder / f"seen{rank}").read_text().splitlines() for rank in range(processes)]
    return [" ".join(step) for step in zip(*lines)]


def test_two_processes_train_as_one_and_continue_when_one_was_killed(folder):
    one, two, killed = folder("one"), folder("two"), folder("killed")
    cut, whole = type_command(killed, 2, KILL=f"1:{STEPS + 3}"), type_command(two, 2)
    _, errors = ended(cut, 1)
    message = "one of the 2 processes of this run was killed, or does not answer; this continues it:  torchrun"
    assert errors.count(message) == 1 and "stopped" not in errors
    ended(whole, 0)
    continued, alone = type_command(killed, 2), type_command(one, 1)
    output, _ = ended(continued, 0)
    ended(alone, 0)
    assert "after step 1 of 3 of epoch 2" in output and output.count("run ") == 2
    assert weights(killed) == weights(two) != weights(one)
    assert epochs(killed) == epochs(two) == pytest.approx(epochs(one), abs=1e-4)
    first, *steps = seen(two, 2)  # one pass before the first step changes nothing
    assert first == steps[0] and steps == seen(one, 1) and len(steps) == 3 * STEPS
    assert len(list(killed.glob("outputs/runs/*"))) == 1
    output, _ = ended(type_command(one, 2, "early_stopping.min_delta=0"), 0)
    assert "this run is finished already" in output


def test_a_mistake_is_printed_once(folder):
    mistakes = type_command(folder("wrong"), 2, "training.epochs=0"), type_command(folder("many"), 2, "-m", "seed=1,2")
    for process, message in zip(mistakes, ("training.epochs=0: must be", "--multirun: torchrun divides")):
        output, errors = ended(process, 1)  # of torchrun; those of the processes are in its message
        assert errors.count(message) == 1 and errors.count("exitcode  : 2") == 2 and not output
