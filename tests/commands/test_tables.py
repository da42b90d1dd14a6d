"""A table of pictures with a broken one, trained over folds: one run, and a multirun that pairs its settings by fold."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from conftest import family
from experiments.runs.finding import find_run
from samples import paint

TINY = ("model.filters=2", "model.dense_width=8", "model.kernel_size=2", "training.epochs=1", "threads=1")


@pytest.fixture
def table(tmp_path):
    """The overrides for a table of 15 pictures of each of two classes, in groups of three, and of a broken one."""
    for label, name in enumerate(("cat", "dog")):
        paint(tmp_path / "pictures", name, 15, 100 * label, size=8)
    (tmp_path / "pictures/cat/broken.png").write_bytes(b"no picture")
    rows = [
        f"{name}/{100 * label + i}.png,{label},{name}{i // 3}"
        for label, name in enumerate(("cat", "dog"))
        for i in range(15)
    ]
    (tmp_path / "pictures/birds.csv").write_text("\n".join(["path,label,group", *rows, "cat/broken.png,0,"]))
    (tmp_path / "names.json").write_text(json.dumps({"0": "Katze", "1": "Hund"}))
    return ("data=csv", "data.file=pictures/birds.csv", "data.image_size=8", "data.class_names=names.json", *TINY)


def test_a_run_lists_what_it_has_left_out(table, tracked, command):
    refused = command("train.py", *table, cwd=tracked)
    assert refused.returncode == 2 and "pictures/cat/broken.png: not a picture" in refused.stderr
    skipping = (*table, "data.skip_broken=true", "data.folds=3", "data.fold=1")
    done = command("train.py", *skipping, cwd=tracked)
    assert done.returncode == 0, done.stderr
    assert "1 broken picture left out: cat/broken.png" in done.stdout + done.stderr
    assert "(fold 1 of 3 folds), 2 classes" in done.stdout
    (page,) = tracked.glob("mlruns/birds/*/artifacts/report.html")
    text = page.read_text()
    assert (
        "Broken pictures that were left out: 1" in text and "cat/broken.png: not a picture" in text and "Katze" in text
    )
    again = command("train.py", *skipping, cwd=tracked)
    assert "this run is finished already" in again.stdout
    other = command("train.py", *skipping[:-1], "data.fold=2", cwd=tracked)
    assert other.returncode == 0 and "finished already" not in other.stdout
    uri = f"sqlite:///{tracked}/mlflow.db"
    for name in ("birds", str(tracked / "pictures/birds.csv")):  # the data set, by its name and by its file
        assert find_run("latest", uri=uri, data=name).data.params["data.fold"] == "2"


def test_a_multirun_over_folds(multirun, tmp_path):
    folds = ("data=digits", "data.folds=3", "data.fold=0,1,2", "model.filters=2,4", "training.epochs=1", "threads=1")
    code, output = multirun(tmp_path, *folds)
    assert code == 0, output
    assert "Only the winner's 3 folds were evaluated on the test set" in output
    (report,) = tmp_path.glob("outputs/sweeps/*/report")
    groups = list(csv.DictReader((report / "groups.csv").open()))
    assert sorted(row["group"] for row in groups) == ["filters=2", "filters=4"]
    assert all(row["n"] == "3" and row["low"] and row["high"] for row in groups)
    (difference,) = csv.DictReader((report / "differences.csv").open())
    assert difference["seeds"] == "3"
    _, above, children = family(tmp_path)
    assert set(children) == {f"fold={fold} filters={filters}" for fold in range(3) for filters in (2, 4)}
    means = {group["group"]: float(group["mean"]) for group in groups}
    best = max(means, key=means.get)
    tested = {name: run for name, run in children.items() if "test/accuracy" in run.data.metrics}
    assert set(tested) == {f"fold={fold} {best}" for fold in range(3)}
    accuracies = [run.data.metrics["test/accuracy"] for run in tested.values()]
    low, high = stats.t.interval(0.95, 2, np.mean(accuracies), stats.sem(accuracies))
    metrics = above.data.metrics
    found = [metrics[f"test/accuracy{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([np.mean(accuracies), max(low, 0), min(high, 1)])
    command = f"python train.py data=digits model.{best} training.epochs=1 threads=1"
    assert f"train it:     {command}\n              It trains without folds" in output
