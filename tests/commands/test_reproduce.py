"""A finished run trained again from what MLflow has of it: identical, or what has changed since."""

import contextlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from experiments.analysis import reproduction
from experiments.analysis.rebuilding import rebuild
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs.finding import find_run
from experiments.runs.recorded import read_run
from samples import paint

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, image_shape, classes):
        super().__init__(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3 * 16 * 16, classes))
"""
URI = "sqlite:///mlflow.db"
RUN = ("data=image_folder", "data.root=pics", "data.image_size=16", "threads=1", "training.epochs=2")


@pytest.fixture(scope="module")
def original(tmp_path_factory, empty_store):
    """A project with a finished run of an own network on a folder of pictures."""
    place = tmp_path_factory.mktemp("original")
    shutil.copy(empty_store, place / "mlflow.db")
    for name, start in (("cat", 0), ("dog", 100)):
        paint(place / "pics", name, 20, start)
    (place / "own_net.py").write_text(NET)
    (place / "own/model").mkdir(parents=True)
    (place / "own/model/net.yaml").write_text("_target_: own_net.Net\nweights: null\n")
    with contextlib.chdir(place), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        run(compose_config([f"hydra.searchpath=[file://{place}/own]", "model=net", *RUN]))
    del sys.modules["own_net"]
    return place


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    """A copy of the project."""
    place = tmp_path / "project"
    shutil.copytree(original, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return place


def artifact(name):
    """The file of an artifact of the run."""
    (file,) = Path("mlruns").rglob(f"artifacts/{name}")
    return file


def change(name, read, write, **values):
    file = artifact(name)
    content = read(file.read_text())
    for key, value in values.items():
        section, _, last = key.rpartition("__")
        (content[section] if section else content)[last] = value
    file.write_text(write(content))


def listed(*overrides, threads=None, trust=False):
    return rebuild(read_run(uri=URI), overrides, threads, trust)


def test_what_has_changed_is_listed_before_anything_is_trained(project):
    same = listed()
    assert str(same).endswith("\n\nexpected: identical")
    for line in ("the same (SHA-256", "the same (own_net.py)", "files that decide the numbers", "random, seed 888"):
        assert line in str(same)
    assert re.search(r"commit (not recorded|[0-9a-f]{10})\b", str(same))
    assert same.then.threads == same.then.processes == 1 and {"torch", "instructions"} <= same.then.machine.keys()
    assert str(listed(threads=2)).endswith("expected: equal within rounding (threads)")
    origin = json.loads(artifact("origin.json").read_text())
    later = origin["parts"][0] | {"first_epoch": 2, "threads": 4}
    change("origin.json", json.loads, json.dumps, parts=[origin["parts"][0], later])
    assert "from epoch 2 on with threads 4" in str(listed())
    older = {**origin["parts"][0]["machine"], "torch": "1.0"}
    change("origin.json", json.loads, json.dumps, parts=[origin["parts"][0] | {"machine": older}])
    assert "1.0, here" in str(listed()) and "equal within rounding (torch), or different: another" in str(listed())
    change("origin.json", json.loads, json.dumps, code=origin["code"] | {"training/loop.py": "0"})
    assert "changed: training/loop.py" in str(listed()) and listed().expectation.endswith("possible (code, torch)")
    artifact("origin.json").unlink()
    assert "its files are not recorded" in str(listed())
    change("config.yaml", yaml.safe_load, yaml.safe_dump, seed=3)
    assert "changed, by the fingerprint" in str(listed())


def test_other_pictures_are_not_the_data_of_the_run(project, command):
    shutil.move("pics", "moved")
    assert "missing: " in str(listed()) and str(listed()).endswith("cannot be rebuilt: data")
    assert listed("data.root=moved").expectation == "expected: identical"
    paint(project / "moved", "cat", 1, 500)
    before = (project / "mlflow.db").read_bytes()
    done = command("scripts/reproduce.py", "latest", "data.root=moved", cwd=project)
    assert done.returncode == 2 and "1 new (cat/500.png)" in done.stdout
    assert "cannot be rebuilt: data: changed: images that have changed since the run: 1 new" in done.stderr
    assert (project / "mlflow.db").read_bytes() == before and not Path("outputs/reproductions").exists()


def test_a_run_is_reproduced_from_its_own_source_and_only_if_it_is_trusted(project, command):
    (project / "own_net.py").write_text(NET.replace("0.2", "0.3"))
    done = command("scripts/reproduce.py", "latest", cwd=project)
    assert done.returncode == 2 and "own_net.Net: changed: own_net.py; --trust" in done.stderr
    (project / "own_net.py").unlink()
    client, first = MlflowClient(URI), find_run("latest", uri=URI)
    done = command("scripts/reproduce.py", first.info.run_id[:8], "--trust", cwd=project)
    assert done.returncode == 0 and "verdict: identical: 2 epochs" in done.stdout, done.stderr
    assert client.get_run(first.info.run_id).to_dictionary() == first.to_dictionary()
    (child,) = client.search_runs([first.info.experiment_id], f"tags.reproduced_run = '{first.info.run_id}'")
    tags = child.data.tags
    assert (tags["verdict"], tags["test_set_evaluations"], child.info.status) == ("identical", "1", "FINISHED")
    assert tags["mlflow.parentRunId"] == first.info.run_id == find_run("latest", uri=URI).info.run_id
    assert child.data.metrics["test/loss"] == first.data.metrics["test/loss"]
    files = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert {"comparison.csv", "reproduction.txt", "report.html"} <= files
    assert not list(Path("outputs/reproductions").rglob("checkpoint*"))


def test_other_settings_give_a_clear_no(project, command):
    change("config.yaml", yaml.safe_load, yaml.safe_dump, optimizer__lr=0.5, training__epochs=9, training__budget="1h")
    done = command("scripts/reproduce.py", "best", cwd=project)
    assert "config.yaml has other values than the run had" in done.stdout
    assert done.returncode == 1 and "verdict: different: epoch 1, val/loss: " in done.stdout, done.stderr
    assert "epoch   2/9" in done.stdout and "epoch   3/9" not in done.stdout  # where the budget has ended the run


def test_small_differences_need_a_reason(project, monkeypatch):
    rebuilt = {threads: listed(threads=threads) for threads in (1, 2)}
    weights = {name: tensor.clone() for name, tensor in rebuilt[1].recorded.logged.weights.items()}
    monkeypatch.setattr(reproduction, "_kept_weights", lambda _: weights)
    metrics = dict(rebuilt[1].recorded.run.data.metrics)
    near = [
        rebuilt[1].history[0],
        rebuilt[1].history[1] | {"val/accuracy": rebuilt[1].history[1]["val/accuracy"] + 1e-3},
    ]
    far = [near[0] | {"train/accuracy": 2.0}, near[1]]
    verdict = {threads: reproduction.compare(each, near, metrics) for threads, each in rebuilt.items()}
    assert verdict[1].word == "different" and verdict[1].reason.startswith("epoch 2, val/accuracy: ")
    assert verdict[2].word == "equal within 0.001" and "threads; the first: epoch 2, val/accuracy" in verdict[2].reason
    assert reproduction.compare(rebuilt[2], far, metrics).reason.startswith("epoch 1, train/accuracy")
    assert reproduction.compare(rebuilt[2], near[:1], metrics).reason.startswith("2 epochs, here 1")
    same = reproduction.compare(rebuilt[1], rebuilt[1].history, metrics)
    assert same.word == "identical"
    next(iter(weights.values())).add_(1e-3)
    assert reproduction.compare(rebuilt[1], rebuilt[1].history, metrics).word == "different"
