"""A finished run evaluated on its own test set, and on other images."""

import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.analysis.evaluate_run import evaluate_run
from experiments.config import UserError
from experiments.config.splits import SPLITS
from experiments.runs.finished import find_run


def test_evaluation_on_the_runs_own_test_set_is_counted(trained, store):
    from mlflow import MlflowClient

    found = evaluate_run(trained, None, [], None)
    assert found.metrics["test/accuracy"] == trained.metrics["test/accuracy"]
    assert found.metrics["test/loss"] == trained.metrics["test/loss"]
    client = MlflowClient(store)
    assert client.get_run(trained.run_id).data.tags["test_set_evaluations"] == "2"
    trained_on = evaluate_run(trained, None, [], "train").metrics
    assert trained_on.keys() >= {"train/accuracy", "train/loss"} and "test/accuracy" not in trained_on
    assert not evaluate_run(trained, "digits", [], "test").warning
    assert client.get_run(trained.run_id).data.tags["test_set_evaluations"] == "3"
    everything = evaluate_run(trained, "digits", [], None)
    assert everything.evaluation.confusion.sum() == 1797 and "trained with some of these images" in everything.warning
    child = client.get_run(found.run_id)
    assert child.data.tags["mlflow.parentRunId"] == trained.run_id and child.info.status == "FINISHED"
    assert {"report.html", "confusion_matrix.csv"} <= {file.path for file in client.list_artifacts(found.run_id)}
    assert find_run("latest", uri=store).info.run_id == trained.run_id


def test_evaluation_on_other_pictures_matches_classes_by_name(trained, test_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in (7, 3):
        (tmp_path / f"set/{label}").mkdir(parents=True)
        for row in np.flatnonzero(test_images.labels == label)[:6]:
            Image.fromarray(test_images.pixels[row].transpose(1, 2, 0)).save(tmp_path / f"set/{label}/{row}.png")
    found = evaluate_run(trained, "image_folder", [f"data.root={tmp_path}/set"], None)
    assert found.evaluation.support.tolist() == [0, 0, 0, 6, 0, 0, 0, 6, 0, 0]
    assert found.metrics["test/accuracy"] > 0.5
    shutil.rmtree(tmp_path / "set/7")
    assert evaluate_run(trained, "image_folder", [f"data.root={tmp_path}/set"], None).evaluation.confusion.sum() == 6
    with pytest.raises(UserError, match="seed=3: only keys of the data"):
        evaluate_run(trained, None, ["seed=3"], None)
    (tmp_path / "set/3").rename(tmp_path / "set/three")
    with pytest.raises(UserError, match="does not know three; it knows 0, 1"):
        evaluate_run(trained, "image_folder", [f"data.root={tmp_path}/set"], None)


def test_the_names_of_the_splits(trained):
    assert tuple(trained.splits().parts()) == SPLITS
