"""The campaigns of scripts/torture.py find what they look for; they themselves take too long for the tests."""

import contextlib
import os
import shutil
import sqlite3

import pytest

from conftest import ROOT


@pytest.fixture
def campaigns(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from campaigns import moments, outcomes

    return moments, outcomes


def metric_twice(folder):
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute(
            "INSERT INTO metrics SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE key = 'val/loss' AND step = 1"
        )


def no_test_counted(folder):
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE tags SET value = '0' WHERE key = 'test_set_evaluations'")


def another_epoch(folder):
    (file,) = folder.glob("mlruns/**/history.csv")
    file.write_text(file.read_text().replace("\n3,", "\n3,9"))


CHANGES = [
    (metric_twice, "metrics: missing [], too many"),
    (no_test_counted, "test_set_evaluations: 1 became 0"),
    (another_epoch, "history"),
    (lambda folder: (folder / "output.txt").write_text(""), "printed"),
    (lambda folder: (folder / "outputs" / "x.part").touch(), "parts"),
]


def test_what_differs_is_found(campaigns, finished, tmp_path, monkeypatch):
    _, outcomes = campaigns
    folder = shutil.copytree(finished[0], tmp_path / "run")
    # the paths in MLflow are those of the original
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(finished[0]), str(folder)))
    (folder / "output.txt").write_text(finished[1])
    expected = outcomes.outcome(folder)
    (run,) = expected["runs"]
    assert run["status"] == "FINISHED" and len(run["models"][0][1]) == 64 and len(expected["checkpoints"]) == 1
    assert len(run["history"]) == 3 and any(line.startswith("test/accuracy") for line in expected["printed"])
    whole = shutil.copytree(folder, tmp_path / "whole")
    assert not list(outcomes.differences(expected, outcomes.outcome(folder)))
    for change, part in CHANGES:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        change(folder)
        assert [found for found in outcomes.differences(expected, outcomes.outcome(folder)) if part in found], part
    weights = next((folder / "mlruns").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert [found for found in outcomes.differences(expected, outcomes.outcome(folder)) if "/models" in found]


def killed_at(moments, folder, at):
    """The body of a process that writes two files and dies at one of the moments."""
    os.setsid()
    os.chdir(folder)
    moments.Moments(folder, at, moments.kill, folder).watch()
    for name in ("a", "b"):
        (folder / "part").write_text(name)
        (folder / "part").rename(folder / name)
    (folder.parent / "elsewhere").write_text("")
    os._exit(0)


@pytest.mark.parametrize(("at", "left"), [(1, []), (2, ["part"]), (3, ["a"]), (4, ["a", "part"]), (5, ["a", "b"])])
def test_a_process_dies_at_the_moment_that_is_asked_for(at, left, campaigns, tmp_path):
    (tmp_path / "here").mkdir()
    if not (process := os.fork()):
        killed_at(campaigns[0], tmp_path / "here", at)
    _, status = os.waitpid(process, 0)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == left
    assert os.WIFSIGNALED(status) == (at < 5)
