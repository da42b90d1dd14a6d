"""The checkpoint of a run."""

import pytest
import torch

from conftest import DIGITS
from experiments.config import metrics
from experiments.config.loading import compose_config
from experiments.experiment import run

SMALL = ("model.filters=2", "model.dense_width=8")


def numbers(result):
    """The final metrics without the time that it took."""
    return {name: value for name, value in result.metrics.items() if name != "seconds"}


def test_the_metrics_of_the_kept_weights_are_logged(here):
    """Steps so small that the accuracy stays the same: the first epoch is the best one, the last is kept."""
    still = [*DIGITS, "tracking=none", "training.epochs=2", "optimizer.lr=1e-9", "early_stopping.monitor=val/accuracy"]
    for restore_best, kept in (("false", 2), ("true", 1)):
        result = run(compose_config([*still, *SMALL, f"early_stopping.restore_best={restore_best}"]))
        for prefix, epoch in (("best", 1), ("kept", kept)):
            expected = metrics.of_epoch(prefix, epoch, result.history[epoch - 1])
            assert expected.items() <= result.metrics.items()
        assert result.history[0]["val/loss"] != result.history[1]["val/loss"]


def test_a_run_that_was_started_before_a_metric_was_added_continues(here):
    """Its first epoch has no validation accuracy, as if that metric were new."""
    overrides = [*DIGITS, *SMALL, "tracking=none", "training.epochs=2", "early_stopping.restore_best=true"]
    with pytest.raises(KeyboardInterrupt):
        run(compose_config(overrides), should_prune=interrupt)
    (path,) = here.glob("outputs/runs/*/checkpoint.pt")
    content = torch.load(path, weights_only=True)
    del content["history"][0]["val/accuracy"]
    torch.save(content, path)
    result = run(compose_config(overrides))
    assert result.metrics["kept/epoch"] == 2 and result.metrics["kept/val_accuracy"] > 0
    again = run(compose_config(overrides))  # read from its files
    assert again.metrics == result.metrics and again.history == result.history
    assert "val/accuracy" not in again.history[0] and again.history[1]["val/accuracy"] > 0


def interrupt(epoch, _):
    raise KeyboardInterrupt


def test_a_damaged_checkpoint_is_not_used(here, caplog):
    overrides = [*DIGITS, "tracking=none", "training.epochs=1"]
    first = run(compose_config(overrides))
    (folder,) = here.glob("outputs/runs/*")
    (folder / "results.json").unlink()
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:5000])
    assert numbers(run(compose_config(overrides))) == numbers(first)
    assert "checkpoint.pt is damaged" in caplog.text
