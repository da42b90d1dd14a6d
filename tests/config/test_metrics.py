"""The table of metrics, and what is read from it."""

import pytest

from experiments.config import UserError, metrics
from experiments.config.defaults import default
from experiments.config.loading import compose_config


@pytest.mark.parametrize(
    "name",
    [
        "val/accuracy",
        "best/val_accuracy",
        "kept/val_accuracy",
        "test/macro_f1",
        "train/macro_f1",
        "test/f1/a b/c",
        "train/corrupted/fog",
    ],
)
def test_higher_is_better(name):
    assert metrics.higher_is_better(name) and metrics.at_most(name) == 1


@pytest.mark.parametrize(
    "name", ["val/loss", "best/val_loss", "kept/val_loss", "test/loss", "seconds", "parameters", "epoch_seconds"]
)
def test_lower_is_better(name):
    assert not metrics.higher_is_better(name) and metrics.at_most(name) is None


def test_the_row_of_validation_stands_for_the_test_set_and_the_best_epoch():
    for name in ("accuracy", "loss"):
        row = metrics.find(f"val/{name}")
        assert row is not None and row is metrics.find(f"test/{name}") is metrics.find(f"best/val_{name}")
    assert metrics.EVALUATED == ("loss", "accuracy", "macro_f1")
    assert metrics.CALIBRATED == ("ece", "brier", "calibrated_loss", "calibrated_ece", "calibrated_brier")
    assert metrics.find("test/ece") is metrics.find("kept/val_ece") is metrics.find("validation/ece") is not None
    assert metrics.find("test/nothing") is metrics.find("nothing") is None


def test_the_metrics_of_one_epoch():
    epoch = {"val/loss": 0.5, "val/accuracy": 0.9, "train/loss": 0.1}
    assert metrics.of_epoch("kept", 3, epoch) == {"kept/epoch": 3, "kept/val_loss": 0.5, "kept/val_accuracy": 0.9}
    assert metrics.of_epoch("best", 1, {"val/loss": 0.5}) == {
        "best/epoch": 1,
        "best/val_loss": 0.5,
    }  # of an older version


def test_the_final_value_is_that_of_the_kept_weights():
    logged = {"val/loss": 3.0, "seconds": 9.0, **metrics.of_epoch("best", 1, {"val/loss": 1.0})}
    assert (
        metrics.final_value(logged, "val/loss") == metrics.final_value(logged, "kept/val_loss") == 1
    )  # an older version
    assert metrics.final_value(logged, "kept/epoch") == 1
    logged |= metrics.of_epoch("kept", 2, {"val/loss": 2.0})
    assert metrics.final_value(logged, "val/loss") == metrics.final_value(logged, "kept/val_loss") == 2
    assert metrics.final_value(logged, "kept/epoch") == 2 and metrics.final_value(logged, "best/val_loss") == 1
    assert metrics.final_value(logged, "seconds") == 9 and metrics.final_value(logged, "val/accuracy") is None


def test_the_metrics_to_monitor_and_to_rank_by_are_named():
    with pytest.raises(UserError) as caught:
        compose_config(["early_stopping.monitor=seconds", "sweep.objectives=[test/loss]"])
    assert str(caught.value).splitlines() == [
        "early_stopping.monitor=seconds: must be one of train/loss, train/accuracy, val/loss, val/accuracy",
        "sweep.objectives[0]=test/loss: must be one of val/loss, val/accuracy, parameters, seconds",
    ]


def test_defaults_are_those_of_the_yaml_files():
    config = compose_config([])
    assert default("seed") == config.seed
    assert default("tracking.uri") == config.tracking.uri
    assert tuple(default("sweep.objectives")) == config.sweep.objectives
    assert default("early_stopping.monitor") == config.early_stopping.monitor
    assert default("optimizer.weight_decay") == config.optimizer.weight_decay == 0  # conf/optimizer/_base.yaml
    assert default("data.root") == config.data.root == "data"  # _cifar.yaml
    assert default("data.validation_size") == config.data.validation_size == 10_000  # replaces that of _base.yaml
    assert default("data.split") == config.data.split == "random"  # _base.yaml, by way of _cifar.yaml
