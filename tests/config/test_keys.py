"""Roles of keys: what a run and a multirun are, which differences count, and how they are named."""

import dataclasses

import pytest

from experiments.config import Config
from experiments.config.constraints import Role
from experiments.config.keys import (
    decisive_settings,
    multirun_name,
    point_name,
    role_of,
    roles,
    run_name,
    standalone_overrides,
)
from experiments.config.loading import compose_config

# (role, in the identity of a run, of a multirun, a difference between points, one value per multirun)
TABLE = {
    Role.DECIDES: (True, True, True, False),
    Role.REPEATS: (True, True, True, False),
    Role.CONTENT: (False, True, True, False),
    Role.HARDWARE: (False, False, True, False),
    Role.PLACE: (False, False, False, True),
    Role.LABEL: (False, False, False, True),
    Role.AFTER: (False, False, False, True),
}
KEYS = {
    Role.DECIDES: "precision data.mean data.std augment.flip model._target_ model.filters model.widths optimizer.lr "
    "optimizer.beta1 schedule.name training.epochs early_stopping.patience evaluation.tta evaluation.calibrate",
    Role.REPEATS: "seed data.fold",
    Role.CONTENT: "data.name data.seed data.root data.urls data.image_size data.validation_size data.test_size data.split data.extra data.exclude data.relabel "
    "model.weights data.folds data.file data.group_column data.class_names data.skip_broken",
    Role.HARDWARE: "device threads",
    Role.PLACE: "outputs data.cache tracking.uri tracking.artifacts",
    Role.LABEL: "tracking.experiment tracking.run_name sweep.name",
    Role.AFTER: "resume evaluate_test training.checkpoint_minutes training.budget sweep.join sweep.budget sweep.objectives sweep.checkpoints_gb",
}


@pytest.mark.parametrize("role", Role)
def test_everything_follows_from_the_role(role):
    found = (role.identifies_run, role.identifies_multirun, role.distinguishes, role.of_whole_multirun)
    assert found == TABLE[role]


@pytest.mark.parametrize(("role", "key"), [(role, key) for role, keys in KEYS.items() for key in keys.split()])
def test_each_key_has_its_role(role, key):
    assert role_of(key) is role_of(f"+{key}") is role


def test_groups_have_the_role_of_their_keys():
    assert role_of("tracking") is Role.PLACE
    for group in ("data", "augment", "model", "optimizer", "schedule", "training", "experiment", "search"):
        assert role_of(group).identifies_multirun
    assert role_of("hydra/sweeper").identifies_multirun and role_of("hydra.sweeper.sampler.seed").identifies_multirun
    assert not any(role_of(f"hydra.sweeper.{key}").identifies_multirun for key in ("n_trials", "n_jobs", "storage"))
    assert not role_of("hydra/launcher").identifies_multirun


def test_keys_of_custom_networks_and_sources():
    assert role_of("model.width") is Role.DECIDES
    assert role_of("data.separator") is Role.CONTENT


def test_every_key_of_the_configuration_is_known():
    for section in dataclasses.fields(Config):
        assert any(key == section.name or key.startswith(f"{section.name}.") for key in roles())


def test_a_run_is_what_decides_its_numbers():
    settings = decisive_settings(compose_config(["data=digits"]))
    assert {"seed", "model.filters", "data.mean"} <= settings.keys()
    assert not {"threads", "data.split", "tracking.uri", "outputs", "resume", "sweep.name"} & settings.keys()


def test_a_multirun_is_named_after_what_was_typed():
    typed = ["data=digits", "+seed=1,2", "model.filters=8", "outputs=elsewhere", "threads=1", "sweep.join=true"]
    assert multirun_name(typed) == "data=digits +seed=1,2 model.filters=8"
    assert multirun_name(["threads=1"]) == "defaults"


def test_names_of_runs():
    overrides = [
        "data=image_folder",
        "data.root=cats",
        "optimizer.lr=0.1",
        "threads=2",
        "tracking.run_name=a",
        "resume=false",
    ]
    assert run_name(overrides, "0123456789") == "data=image_folder root=cats lr=0.1 012345"
    assert run_name(["seed=1", "data.seed=2", "data.fold=0"], "0123456789") == "seed=1 data.seed=2 fold=0 012345"


@pytest.mark.parametrize(
    ("value", "shown"), [("/a/b/net.pth", "net.pth"), ("'/a b/net.pth'", "net.pth"), ("run:0a1b", "run:0a1b")]
)
def test_the_name_of_a_file_of_weights_is_enough(value, shown):
    assert run_name([f"model.weights={value}"], "0123456789") == f"weights={shown} 012345"
    assert multirun_name(["seed=1,2", f"model.weights={value}"]) == f"seed=1,2 model.weights={shown}"
    assert multirun_name([f"model.weights={value},c/net.pth"]) == f"model.weights={value},c/net.pth"


def test_a_single_run_needs_neither_the_multirun_nor_what_comes_after():
    overrides = ["seed=1", "sweep.name=a", "resume=false", "tracking.run_name=b", "evaluate_test=true"]
    kept = ["outputs=o", "tracking=mlflow", "tracking.uri=sqlite:///a.db", "tracking.experiment=c"]
    assert standalone_overrides([*overrides, *kept]) == ["seed=1", *kept]


def test_a_key_that_is_added_is_in_the_name_of_a_point():
    assert point_name(["data=digits", "+model.width=8", "seed=1"], ["+model.width", "seed"]) == "width=8 seed=1"
