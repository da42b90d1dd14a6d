"""Runs of version 0.1, from before its modules moved and some keys were renamed, are used as new ones are.

The store holds `python train.py data=digits threads=1 training.epochs=1 model.filters=2 model.dense_width=8`, and the multirun
`-m ... model=fastnet 'model.widths=[4,8]' optimizer=muon optimizer.unit_filters=true optimizer.rest_lr=0.004
optimizer.weight_decay_on=all 'training.sides=[24]' training.epochs=2 seed=1,2`, made in /project.
"""

import re
import sqlite3
import tarfile
from pathlib import Path

import pytest

from experiments.analysis.evaluate_run import evaluate_run
from experiments.analysis.rebuilding import rebuild
from experiments.comparison.loading import find_comparison
from experiments.runs.finished import load_run
from experiments.runs.recorded import read_run

CNN, FASTNET = "2687b547", "0bd35f92"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the store; MLflow keeps absolute paths, so they are made those of this folder."""
    folder = tmp_path_factory.mktemp("project")
    with tarfile.open(Path(__file__).parents[1] / "runs" / "store_of_version_0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with sqlite3.connect(folder / "mlflow.db") as database:
        for table, column in (
            ("runs", "artifact_uri"),
            ("experiments", "artifact_location"),
            ("logged_models", "artifact_location"),
        ):
            database.execute(f"update {table} set {column} = replace({column}, '/project/', '{folder}/')")
    database.close()
    return folder


@pytest.mark.parametrize("run_id", [CNN, FASTNET])
def test_they_evaluate_to_the_numbers_that_were_logged(project, run_id):
    run = load_run(run_id, uri=f"sqlite:///{project}/mlflow.db")
    split = "test" if "test/accuracy" in run.metrics else "validation"
    found = evaluate_run(run, None, [], split).metrics
    before = {"loss": run.metrics.get("test/loss"), "accuracy": run.metrics.get("test/accuracy")}
    if split == "validation":
        before = {"loss": run.metrics["best/val_loss"], "accuracy": run.metrics["best/val_accuracy"]}
    assert found[f"{split}/accuracy"] == pytest.approx(before["accuracy"], abs=1e-12)
    assert found[f"{split}/loss"] == pytest.approx(before["loss"], rel=1e-5)  # other thread counts sum in another order


def test_a_reproduction_says_what_they_have_not_recorded(project):
    found = rebuild(read_run(CNN, uri=f"sqlite:///{project}/mlflow.db"), [], None, False)
    assert re.search(r"^code +its files are not recorded", str(found), re.MULTILINE)
    assert re.search(r"^packages +not recorded", str(found), re.MULTILINE)
    assert "changed, by the fingerprint of the run" in str(found) and found.expectation.startswith(
        "expected: other numbers"
    )


def test_old_names_of_keys_are_read(project):
    config = load_run(FASTNET, uri=f"sqlite:///{project}/mlflow.db").config
    assert config.training.image_sizes == (24,)
    assert config.optimizer.normalize_filters and config.optimizer.adam_lr == 0.004
    assert config.optimizer.weight_decay_exclude == "none"


def test_the_multirun_compares_as_before(project, command):
    found = find_comparison([], f"sqlite:///{project}/mlflow.db", [])
    assert {point.name: f"{point.value('val/accuracy'):.4f}" for point in found.winner.points} == {
        "seed=1": "0.3733",
        "seed=2": "0.5033",
    }
    assert [point.status for point in found.points] == ["finished", "finished"]
    output = command("scripts/compare.py", cwd=project).stdout
    assert re.search(r"^1 +all points +2 +0\.4383 ", output, re.MULTILINE)  # the mean


def test_they_predict_and_explain(project, command):
    from PIL import Image

    Image.effect_noise((40, 40), 80).convert("RGB").save(project / "noise.png")
    for run_id in (CNN, FASTNET):
        for script in ("scripts/predict.py", "scripts/explain.py"):
            done = command(script, "noise.png", "--run", run_id, cwd=project)
            assert done.returncode == 0, done.stderr
            assert run_id in done.stdout or script == "scripts/explain.py"
    assert list(project.glob("outputs/**/*.png"))
