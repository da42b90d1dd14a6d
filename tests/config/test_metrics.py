"""The table of metrics, and what is read from it."""

import pytest

from experiments.config import UserError, metrics
from experiments.config.defaults import default
from experiments.config.loading import compose_config


def test_names_per_epoch():
    assert set(metrics.EPOCH_METRICS) == {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "learning_rate",
        "epoch_seconds",
        "images_per_second",
    }


@pytest.mark.parametrize(
    "name", ["val/accuracy", "best/val_accuracy", "test/macro_f1", "train/macro_f1", "test/f1/a b/c"]
)
def test_higher_is_better(name):
    assert metrics.higher_is_better(name) and metrics.at_most(name) == 1


@pytest.mark.parametrize("name", ["val/loss", "best/val_loss", "test/loss", "seconds", "parameters", "epoch_seconds"])
def test_lower_is_better(name):
    assert not metrics.higher_is_better(name) and metrics.at_most(name) is None


def test_the_row_of_validation_stands_for_the_test_set_and_the_best_epoch():
    for name in ("accuracy", "loss"):
        row = metrics.find(f"val/{name}")
        assert row is not None and row is metrics.find(f"test/{name}") is metrics.find(f"best/val_{name}")
    assert metrics.BEST == {"val/loss": "best/val_loss", "val/accuracy": "best/val_accuracy"}
    assert metrics.EVALUATED == ("loss", "accuracy", "macro_f1")
    assert metrics.find("test/nothing") is metrics.find("nothing") is None


def test_the_final_metric_of_an_epochs_metric():
    assert metrics.final_name("val/accuracy") == "best/val_accuracy"
    assert metrics.final_name("seconds") == "seconds"


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
