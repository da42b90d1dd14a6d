"""A run in MLflow: whose it is, whether its files are there, and what becomes of runs that nobody works on."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from conftest import DIGITS
from experiments.config.errors import RunFailed
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs import store
from experiments.runs.delivery import Delivery
from experiments.runs.finished import load_run
from experiments.training import devices

pytestmark = pytest.mark.usefixtures("tracked")
SMALL = [*DIGITS, "model.filters=2", "model.dense_width=8", "early_stopping.patience=null"]


def settings(*overrides, epochs=4):
    return compose_config([*SMALL, f"training.epochs={epochs}", *overrides])


def runs(experiment="digits"):
    """(client, the runs in an MLflow experiment of this folder, the first one first)."""
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    place = client.get_experiment_by_name(experiment).experiment_id
    return client, client.search_runs([place], order_by=["attributes.start_time ASC"])


def test_another_experiment_leaves_the_checkpoint_of_an_unfinished_run(here):
    run(settings(), should_prune=lambda epoch, _: epoch == 3)
    run(settings("tracking.experiment=other"), should_prune=lambda epoch, _: epoch == 1)
    assert len(list(here.glob("outputs/runs/*/checkpoint.pt"))) == 2
    expected = run(settings("tracking=none")).history
    for experiment in ("digits", "other"):
        result = run(settings(f"tracking.experiment={experiment}"))
        assert [epoch["val/loss"] for epoch in result.history] == [epoch["val/loss"] for epoch in expected]
        (only,) = runs(experiment)[1]
        history = [value.value for value in runs()[0].get_metric_history(only.info.run_id, "epoch_seconds")]
        assert history == [epoch["epoch_seconds"] for epoch in result.history]  # no epoch was trained twice


def test_a_run_that_another_process_has_finished_stays_finished(here):
    """With outputs of its own, a second process trains the same run of MLflow."""

    def stopped_after_the_other_has_finished(epoch, _):
        if epoch == 2:
            run(settings())
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(settings("outputs=elsewhere"), should_prune=stopped_after_the_other_has_finished)
    (only,) = runs()[1]
    assert only.info.status == "FINISHED"


def abandoned(folder):
    """The body of a process that is killed in its second epoch."""
    os.chdir(folder)
    run(settings(), should_prune=lambda epoch, _: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.slow
def test_what_no_process_holds_is_closed_by_a_later_command(here, start):
    process = start(abandoned, here)
    process.join()
    assert [each.info.status for each in runs()[1]] == ["RUNNING"]
    seen = []

    def look(*_):
        if not seen:
            seen.append([each.info.status for each in runs()[1]])
            run(settings("seed=2", epochs=1))  # the outer run is held by this process
            seen.append([each.info.status for each in runs()[1]])
        return False

    run(settings("seed=1", epochs=2), should_prune=look)
    assert seen == [["KILLED", "RUNNING"], ["KILLED", "RUNNING", "FINISHED"]]
    assert [each.info.status for each in runs()[1]] == ["KILLED", "FINISHED", "FINISHED"]


def test_a_model_whose_files_have_disappeared_is_logged_again(here):
    result = run(settings("evaluate_test=false", epochs=1))
    shutil.rmtree("mlruns")
    again = run(settings("evaluate_test=true", epochs=1))
    assert again.run_id == result.run_id and "test/accuracy" in again.metrics
    found = load_run(again.run_id, uri="sqlite:///mlflow.db")
    assert found.metrics["test/accuracy"] == again.metrics["test/accuracy"]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_the_files_of_a_finished_run_are_made_again_if_they_are_gone(checkpoint, here, caplog, capsys):
    result = run(settings(epochs=2))
    shutil.rmtree("mlruns")
    if not checkpoint:
        shutil.rmtree("outputs")
    capsys.readouterr()
    again = run(settings(epochs=2))
    assert "its files are gone; they are made again" in caplog.text
    assert ("epoch   2/2" in capsys.readouterr().out) is not checkpoint  # trained again only without a checkpoint
    assert again.run_id == result.run_id
    timed = ("seconds", "epoch_seconds", "images_per_second")
    same = [{name: value for name, value in one.metrics.items() if name not in timed} for one in (result, again)]
    assert same[0] == same[1]
    (only,) = runs()[1]
    assert only.info.status == "FINISHED" and only.data.tags["test_set_evaluations"] == "1"
    assert (
        load_run(result.run_id, uri="sqlite:///mlflow.db").metrics["test/accuracy"] == result.metrics["test/accuracy"]
    )
    caplog.clear(), capsys.readouterr()
    MlflowClient(f"sqlite:///{here}/mlflow.db").set_tag(
        result.run_id, "test_set_evaluations", "0"
    )  # a kill before it was stored
    run(settings(epochs=2))
    assert "finished already" in capsys.readouterr().out and not caplog.text
    assert runs()[1][0].data.tags["test_set_evaluations"] == "1"


def test_no_run_is_finished_whose_files_are_not_there(here, monkeypatch):
    final = Delivery.final

    def disappearing(delivery, **results):
        shutil.rmtree("mlruns")
        final(delivery, **results)

    with monkeypatch.context() as during:
        during.setattr(Delivery, "final", disappearing)
        with pytest.raises(RunFailed, match=r"were logged to .*mlruns.*digits.* are not there: .*report\.html.*model"):
            run(settings(epochs=1))
    assert runs()[1][0].info.status == "FAILED"
    result = run(settings(epochs=1))
    assert [each.info.status for each in runs()[1]] == ["FINISHED"]
    assert (
        load_run(result.run_id, uri="sqlite:///mlflow.db").metrics["test/accuracy"] == result.metrics["test/accuracy"]
    )


def test_another_number_of_threads_is_said_in_one_line(here, capsys):
    before = torch.get_num_threads()
    try:
        first = run(settings(epochs=1))
        capsys.readouterr()
        again = run(settings("threads=2", epochs=1))
    finally:
        torch.set_num_threads(before)
    assert again.run_id == first.run_id
    assert "it was started with 1 CPU thread; with 2 the last digits may differ" in capsys.readouterr().out


def test_a_run_continues_with_the_threads_that_it_was_started_with(here, monkeypatch, caplog):
    """Else a machine that is busier or idler than before would change the last bits of the numbers."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "free_cpus", lambda: 3)  # what the machine has at the start of the second process
    before, seen = torch.get_num_threads(), []

    def interrupt(epoch, _):
        seen.append(torch.get_num_threads())
        if len(seen) == 1:
            raise KeyboardInterrupt

    overrides = settings("threads=null", epochs=2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(overrides, should_prune=interrupt)
        client, (found,) = runs()
        client.set_tag(found.info.run_id, store.TAG_THREADS, "1")
        run(overrides, should_prune=interrupt)
    finally:
        torch.set_num_threads(before)
    assert seen[0] == 3 and seen[-1] == 1
    assert "threads=1, as the run was started with" in caplog.text
