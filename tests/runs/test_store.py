"""MLflow's store: opened, searched, and what does not fit into it."""

import shlex

import pytest

from conftest import DIGITS
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs import store


def test_a_server_that_does_not_answer_is_reported(here):
    with pytest.raises(UserError, match="no MLflow server answers"):
        run(compose_config([*DIGITS, "tracking.uri=http://127.0.0.1:9"]))


def test_a_deleted_experiment_is_reported(here):
    from mlflow import MlflowClient

    overrides = [*DIGITS, "training.epochs=1"]
    run(compose_config(overrides))
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    with pytest.raises(UserError, match=r"tracking\.experiment=digits: was deleted"):
        run(compose_config(overrides))


LONG = ["data=digits", *(f"model.note{number}='it is {number} words long'" for number in range(500)), "seed=1"]


@pytest.mark.parametrize("overrides", [[], ["data=digits", "seed=1"], ["x=a b", "y='"], LONG, ["a=" + "b" * 20_000]])
def test_overrides_of_any_length_are_kept_whole(overrides):
    tags = store.override_tags(overrides)
    assert store.read_overrides(tags) == overrides
    assert all(len(value) <= store.MAX_TAG for value in tags.values())
    assert tags["overrides"] == shlex.join(overrides)[: store.MAX_TAG - 1]


def test_passwords_are_not_kept():
    tags = store.override_tags(["tracking.uri=postgresql://me:secret@host/db"])
    assert tags == {"overrides": "tracking.uri=postgresql://me:***@host/db"}


@pytest.mark.parametrize("overrides", [LONG, ["a=" + "b" * 20_000]])
def test_overrides_that_an_earlier_version_cut_are_read(overrides):
    found = store.read_overrides({"overrides": shlex.join(overrides)[: store.MAX_TAG]})
    assert found == overrides[: len(found)] and (len(found) > 100 or overrides is not LONG)


def test_a_search_returns_more_than_a_page(here, monkeypatch):
    client = store.connect("sqlite:///mlflow.db")
    places = [client.create_experiment(name) for name in ("a", "b")]
    runs = [client.create_run(places[number % 2]).info.run_id for number in range(5)]
    monkeypatch.setattr(store, "PAGE", 2)
    found = store.search_runs(client, places, "attributes.status = 'RUNNING'", "start_time ASC")
    assert {run.info.run_id for run in found} == set(runs) and len(found) == 5
    assert store.experiment_ids(client) == {"Default": "0", "a": places[0], "b": places[1]}
