"""Names that a terminal or a spreadsheet would run do nothing, and a run whose output is closed goes on to its end."""

import csv
import io
import json
import subprocess
import sys

import pytest

from conftest import ROOT
from experiments.runs import store
from experiments.runs.finished import load_run, read_artifact
from samples import paint

CLASSES = ("=1+1", "@b", "-\x1b[31m[red]c\x9b31m\u202e")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a run whose output nobody reads to its end."""
    folder = tmp_path_factory.mktemp("names")
    for number, name in enumerate(CLASSES):
        paint(folder / "pictures", name, 12, 100 * number)
    overrides = "data=image_folder data.root=pictures data.image_size=20 model.filters=2 model.dense_width=8 threads=1"
    command = f"set -o pipefail; {sys.executable} -u {ROOT}/train.py {overrides} training.epochs=2 | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("\n") == 1 and done.returncode == 0
    return folder, done.stderr


def test_a_run_whose_output_is_closed_is_finished(project):
    folder, errors = project
    client = store.connect(f"sqlite:///{folder}/mlflow.db")
    assert [run.info.status for run in client.search_runs(["1"])] == ["FINISHED"]
    assert errors.startswith("the output was closed") and errors.count("\n") == 1


def test_tables_escape_formulas(project, command, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(folder)
    run = load_run(uri=f"sqlite:///{folder}/mlflow.db")
    matrix = list(csv.reader(io.StringIO(read_artifact(run, "confusion_matrix.csv"))))
    assert {row[0] for row in matrix[1:]} == {f"'{name}" for name in CLASSES} == set(matrix[0][1:])
    assert run.membership and len(run.splits().train)  # it is read back, so it has the names as they are
    (picture, *_) = (folder / "pictures" / "@b").iterdir()
    picture.rename(folder / "=cmd|x.png")
    done = command("scripts/predict.py", "=cmd|x.png", "--csv", cwd=folder)
    _, (file, name, probability, top) = csv.reader(io.StringIO(done.stdout))
    assert file == "'=cmd|x.png" and name[0] == top[0] == "'" and 0 < float(probability) < 1


def test_names_do_nothing_on_a_terminal(project, command):
    folder, _ = project
    for picture in ("=cmd|x.png", "no\x1b]0;x\x07\nsuch.png"):
        done = command("scripts/predict.py", picture, cwd=folder)
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
    (picture, *_) = (folder / "pictures" / CLASSES[2]).iterdir()
    done = command("scripts/predict.py", picture, "--json", "--top", 3, cwd=folder)
    assert not set("\x1b\x9b\u202e") & set(done.stdout)
    (found,) = json.loads(done.stdout)
    assert {top["class"] for top in found["top"]} == set(CLASSES)
    assert "[red]c" in command("scripts/evaluate.py", "--split", "train", cwd=folder).stdout
