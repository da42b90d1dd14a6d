"""A finished run evaluated on its own test set, and on other images."""

import contextlib
import dataclasses
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from experiments.analysis import explanation
from experiments.analysis.evaluate_run import evaluate_run
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.config.metrics import find
from experiments.config.splits import SPLITS
from experiments.reports import report
from experiments.runs.finding import find_run
from experiments.runs.finished import load_run
from samples import paint

FOLDER = (
    "data=image_folder", "data.image_size=16", "model.kernel_size=2", "model.filters=2", "model.dense_width=8",
    "training.epochs=1", "threads=1",
)  # fmt: skip


def stop(*_):
    raise KeyboardInterrupt


def test_evaluation_on_the_runs_own_test_set_is_counted(trained, store, here, monkeypatch):
    """Once, also if it is interrupted and continued."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(report, "write", stop)
        evaluate_run(trained, None, [], None)
    found = evaluate_run(trained, None, ["data.workers=1"], None)  # another parameter, the same images
    assert found.metrics["test/accuracy"] == trained.metrics["test/accuracy"]
    assert found.metrics["test/loss"] == trained.metrics["test/loss"]
    calibrated = {name: value for name, value in trained.metrics.items() if find(name).written == "calibration"}
    assert len(calibrated) == 5 and calibrated.items() <= found.metrics.items()
    client = MlflowClient(store)
    assert client.get_run(trained.run_id).data.tags["test_set_evaluations"] == "2"
    trained_on = evaluate_run(trained, None, [], "train").metrics
    assert trained_on.keys() >= {"train/accuracy", "train/loss"} and "test/accuracy" not in trained_on
    assert not evaluate_run(trained, "digits", [], "test").warning
    assert client.get_run(trained.run_id).data.tags["test_set_evaluations"] == "3"
    everything = evaluate_run(trained, "digits", [], None)
    assert (
        everything.evaluation.confusion.sum() == 1797
        and "trained with 1,200 of these 1,797 images, and validated on 300" in everything.warning
    )
    names = [run.info.run_name for run in client.search_runs(["1"], "tags.evaluated_run != ''")]
    assert len(names) == 4 and names.count(found.name) == 2  # the other one: with the name of the data
    child = client.get_run(found.run_id)
    assert child.data.tags["mlflow.parentRunId"] == trained.run_id and child.info.status == "FINISHED"
    assert {"report.html", "confusion_matrix.csv"} <= {file.path for file in client.list_artifacts(found.run_id)}
    assert find_run("latest", uri=store).info.run_id == trained.run_id


def test_evaluation_on_other_pictures_matches_classes_by_name(trained, test_images, here):
    for label in (7, 3):
        (here / f"set/{label}").mkdir(parents=True)
        for row in np.flatnonzero(test_images.labels == label)[:6]:
            Image.fromarray(test_images.pixels[row].transpose(1, 2, 0)).save(here / f"set/{label}/{row}.png")
    found = evaluate_run(trained, "image_folder", [f"data.root={here}/set"], None)
    assert found.evaluation.support.tolist() == [0, 0, 0, 6, 0, 0, 0, 6, 0, 0]
    assert found.metrics["test/accuracy"] > 0.5
    shutil.rmtree(here / "set/7")
    assert evaluate_run(trained, "image_folder", [f"data.root={here}/set"], None).evaluation.confusion.sum() == 6
    with pytest.raises(UserError, match="seed=3: only keys of the data"):
        evaluate_run(trained, None, ["seed=3"], None)
    (here / "set/3").rename(here / "set/three")
    with pytest.raises(UserError, match="does not know three; it knows 0, 1"):
        evaluate_run(trained, "image_folder", [f"data.root={here}/set"], None)


def test_the_names_of_the_splits(trained):
    assert tuple(trained.splits().parts()) == SPLITS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run on the folder `pics`: 40 cats and 40 dogs."""
    from experiments.experiment import run

    place = tmp_path_factory.mktemp("folder")
    for name, start in (("cat", 0), ("dog", 100)):
        paint(place / "pics", name, 40, start)
    with contextlib.chdir(place):
        run(compose_config([*FOLDER, "data.root=pics"]))
    return place


@pytest.fixture
def changed(folder, tmp_path, monkeypatch):
    """(the finished run, the folder of its pictures) in a copy of that working directory."""
    shutil.copytree(folder / "pics", tmp_path / "pics")
    shutil.copy(folder / "mlflow.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    return load_run(uri="sqlite:///mlflow.db"), tmp_path / "pics"


def test_its_own_test_set_stays_the_same_when_pictures_are_added(changed, caplog):
    run, pics = changed
    before = run.membership.in_split(run.splits().test, "test").sum()
    logged = evaluate_run(run, None, [], None)
    assert logged.metrics["test/accuracy"] == run.metrics["test/accuracy"] and not logged.warning
    paint(pics, "cat", 9, 500)
    paint(pics, "bird", 3, 600)
    (gone,) = [name for name in run.splits().test.names if name.startswith("cat")][:1]
    (pics / gone).unlink()
    today = load_run(uri="sqlite:///mlflow.db")
    assert set(today.splits().test.names) == set(run.splits().test.names) - {gone}
    assert (
        f"12 new (bird/600.png, bird/601.png, bird/602.png, cat/500.png, cat/501.png and 7 more), 1 gone ({gone} (test))"
        in caplog.text
    )
    found = evaluate_run(today, None, [], None)
    assert found.evaluation.confusion.sum() == before - 1 and "12 new" in found.warning
    assert len(explanation.mistakes(today, 99)) == before - 1 - found.evaluation.confusion.trace()


def test_another_spelling_of_the_folder_is_the_same_data(changed):
    run, pics = changed
    shutil.copytree(pics, "copy")
    paint(pics, "cat", 9, 500)
    count = int(MlflowClient(run.uri).get_run(run.run_id).data.tags["test_set_evaluations"])
    for root in ("./pics", str(pics), "copy"):
        own = evaluate_run(run, None, [f"data.root={root}"], None)
        assert own.evaluation.confusion.sum() == 16
        everything = evaluate_run(run, "image_folder", [f"data.root={root}"], None)
        assert "trained with 51 of these" in everything.warning and "validated on 13" in everything.warning
        drawn = evaluate_run(run, "image_folder", [f"data.root={root}", "data.seed=3"], "test")
        assert "the run was trained or validated on them (" in drawn.warning
        count += 3
        assert int(MlflowClient(run.uri).get_run(run.run_id).data.tags["test_set_evaluations"]) == count
    paint(pics.parent / "foreign", "cat", 9, 900)
    assert not evaluate_run(run, "image_folder", ["data.root=foreign"], None).warning
    with pytest.raises(UserError, match=r"none of the run's images .* --data image_folder data\.root=foreign$"):
        evaluate_run(run, None, ["data.root=foreign"], None)
    assert int(MlflowClient(run.uri).get_run(run.run_id).data.tags["test_set_evaluations"]) == count


def test_a_picture_in_another_class_counts_for_that_one_and_a_renamed_class_is_known(changed):
    run, pics = changed
    (moved,) = [name for name in run.splits().test.names if name.startswith("cat")][:1]
    (pics / moved).rename(pics / "dog/moved.png")
    (pics / "cat").rename(pics / "chat")
    found = evaluate_run(run, None, [], None)
    assert found.evaluation.support.tolist() == [7, 9]
    assert found.warning.endswith("since the run: 1 of another class (dog/moved.png).")


def test_a_run_that_did_not_keep_its_splits_says_so(changed, caplog):
    run, _ = changed
    older = dataclasses.replace(run)
    vars(older)["membership"] = None
    assert older.splits().digest == run.splits().digest
    assert "an earlier version made it, which did not keep its splits; they are drawn again" in caplog.text
