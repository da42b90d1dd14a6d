"""The run that a configuration describes."""

import sqlite3

import pytest

from conftest import DIGITS
from experiments.config.command_line import Command
from experiments.config.keys import run_name
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.runs import local_store, store
from experiments.runs.fingerprint import fingerprint
from experiments.runs.provenance import ParentRun
from experiments.runs.start import started
from experiments.training.devices import choose_device
from experiments.training.learner import initial_model

pytestmark = pytest.mark.usefixtures("tracked")
OVERRIDES = [*DIGITS, "model.filters=4"]


def start(*others, parent=None, command=OVERRIDES):
    config = compose_config([*OVERRIDES, *others])
    splits = load_splits(config.data)
    return started(
        config, Command(tuple(command)), splits, initial_model(config, splits), choose_device(config), parent
    )


@pytest.mark.parametrize("tracking", ["tracking=mlflow", "tracking=none"])
def test_runs_are_named_by_one_rule(here, tracking):
    config = compose_config(OVERRIDES)
    identity = fingerprint(config, choose_device(config).type, load_splits(config.data).digest)
    with start(tracking) as active:
        assert active.tracker.name == run_name(OVERRIDES, identity)
    with start(tracking, "resume=false", parent=ParentRun(None, "filters=4")) as active:
        assert active.tracker.name == "filters=4"
    with start(tracking, "resume=false", "tracking.run_name=mine", parent=ParentRun(None, "filters=4")) as active:
        assert active.tracker.name == "mine"


def test_names_and_overrides_longer_than_mlflow_allows(here):
    from experiments.comparison.loading import to_point

    long = [*OVERRIDES, *(f"+model.note{number}='a b'" for number in range(400))]
    with start(command=long) as active:
        assert len(active.tracker.name) == store.MAX_NAME
        point = to_point(active.tracker.client, active.tracker.client.get_run(active.tracker.run_id))
    assert point.overrides == long


def test_who_is_tested(here):
    parent = ParentRun(None, "a")
    for others, above, test in [
        ((), None, True),
        ((), parent, False),
        (("evaluate_test=true",), parent, True),
        (("evaluate_test=false",), None, False),
    ]:
        with start("tracking=none", *others, parent=above) as active:
            assert active.test is test and not active.is_complete


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_another_process_finished_stays_finished(error, here):
    """Another machine with its own outputs/ has the same run."""
    with pytest.raises(error), start() as active:
        client, run_id = active.tracker.client, active.tracker.run_id
        client.set_terminated(run_id, "FINISHED")
        raise error
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and "failure" not in run.data.tags


@pytest.mark.parametrize(
    ("first", "then", "status"),
    [(KeyboardInterrupt, None, "KILLED"), (KeyboardInterrupt, OSError, "KILLED"), (RuntimeError, None, "FAILED")],
)
def test_a_run_that_is_stopped_is_killed_even_if_its_output_is_gone(first, then, status, here):
    with pytest.raises(then or first), start() as active:
        try:
            raise first
        except BaseException:
            if then:
                raise then("Rich cannot write") from None
            raise
    run = active.tracker.client.get_run(active.tracker.run_id)
    assert run.info.status == status and ("failure" in run.data.tags) == (status == "FAILED")


def test_an_error_is_raised_even_if_mlflow_cannot_be_told(here, monkeypatch, caplog):
    monkeypatch.setattr(local_store, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(local_store, "PATIENCE_SECONDS", 0.1)
    store.connect("sqlite:///mlflow.db")
    database = sqlite3.connect("mlflow.db", isolation_level=None)
    with pytest.raises(KeyboardInterrupt), start():
        database.execute("BEGIN EXCLUSIVE")
        raise KeyboardInterrupt
    database.close()
    assert "stays RUNNING in MLflow" in caplog.text


def test_passwords_are_not_logged(here):
    address = "https://me:geheim1@host"
    with pytest.raises(RuntimeError), start(command=[*OVERRIDES, f"data.urls=[{address}/x]"]) as active:
        raise RuntimeError(f"API request to {address} failed")
    run = active.tracker.client.get_run(active.tracker.run_id)
    assert "geheim1" not in str(run.to_dictionary()) + active.tracker.name
    for text in (run.info.run_name, run.data.tags["failure"], run.data.tags["overrides"]):
        assert "https://me:***@host" in text
