"""A multirun whose points share their first epochs trains each of them once."""

import os
import random
from collections import Counter

import pytest

from conftest import DIGITS, family, kill_group, typed
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs.checkpoint_files import read
from experiments.sweep.sharing import may_share, side_by_side

GRID = [*DIGITS, "data.validation_size=1000", "model.filters=4", "model.dense_width=8", "early_stopping.patience=null"]
EPOCHS = "training.epochs=1,2,4"
TIMED = ("seconds", "epoch_seconds", "images_per_second")
KILLS = int(os.environ.get("KILLS", "3"))


def counted(folder):
    """How often each epoch of each run was trained."""
    lines = [line for file in folder.glob("outputs/sweeps/*/epochs") for line in file.read_text().splitlines()]
    return Counter(line for line in lines if line.startswith("trained"))


def saved(folder, line):
    """Whether a run has a checkpoint of the epoch that is counted in a line; it has none if it was killed before that."""
    _, name, epoch = line.split()
    run = folder / "outputs" / "runs" / name
    files = [file for file in (run / "checkpoint.pt", run / "checkpoint-previous.pt") if file.exists()]
    return any(len(read(file)["history"]) >= int(epoch) for file in files)


def metrics(folder):
    """The metrics of each point, per epoch and final, without times."""
    client, _, children = family(folder)
    return {
        name: {
            metric: [(value.step, value.value) for value in client.get_metric_history(point.info.run_id, metric)]
            for metric in point.data.metrics.keys() - TIMED
        }
        for name, point in children.items()
    }


@pytest.fixture(scope="module")
def swept(multirun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    code, output = multirun(folder, *GRID, EPOCHS)
    assert code == 0, output
    return folder, output


def test_each_epoch_is_trained_once(swept, tmp_path, monkeypatch):
    folder, output = swept
    assert "4 epochs trained, 3 saved" in output and counted(folder).total() == 4
    _, above, children = family(folder)
    assert (above.data.tags["epochs_trained"], above.data.tags["epochs_saved"]) == ("4", "3")
    assert {name: point.data.tags.get("forked_from", ":0").split(":")[1] for name, point in children.items()} == {
        "epochs=1": "0",
        "epochs=2": "1",
        "epochs=4": "2",
    }
    assert not list(folder.glob("outputs/sweeps/*/checkpoints"))
    monkeypatch.chdir(tmp_path)
    alone = run(compose_config([*GRID, "training.epochs=4", "tracking=none", "evaluate_test=false"]))
    found = metrics(folder)["epochs=4"]
    assert [value for _, value in found["val/loss"]] == [epoch["val/loss"] for epoch in alone.history]
    assert all(values[-1][1] == alone.metrics[name] for name, values in found.items() if name.startswith("kept/"))


def test_killed_several_times_it_trains_nothing_twice(swept, start, multirun, ready_store, tmp_path):
    moments, lost = random.Random(888), Counter()
    ready_store(tmp_path)
    for _ in range(KILLS):
        before = counted(tmp_path)
        process = start(typed, tmp_path, "-m", *GRID, EPOCHS)
        process.join(moments.uniform(0.5, 5))
        kill_group(process)
        lost += Counter(line for line in counted(tmp_path) - before if not saved(tmp_path, line))
    code, output = multirun(tmp_path, *GRID, EPOCHS)
    assert code == 0, output
    assert metrics(tmp_path) == metrics(swept[0])
    assert counted(tmp_path) - lost == Counter(counted(tmp_path).keys())
    assert family(tmp_path)[1].data.tags["epochs_trained"] == "4"


def test_points_that_share_nothing_start_side_by_side():
    jobs = [[f"seed={seed}", f"training.epochs={epochs}"] for seed in (1, 2) for epochs in (5, 10)]
    assert [jobs[place] for place in side_by_side(jobs)] == [jobs[0], jobs[2], jobs[1], jobs[3]]
    assert may_share(["seed", "+training.epochs"]) and may_share(["schedule"]) and may_share(["training"])
    assert not may_share(["seed", "model", "optimizer.lr"])
