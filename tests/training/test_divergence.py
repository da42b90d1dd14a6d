"""A run whose loss becomes infinite after good epochs keeps what it had."""

import pytest
import torch
from mlflow import MlflowClient

from conftest import DIGITS
from experiments.comparison.configurations import configurations
from experiments.comparison.loading import to_point
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.training.loop import Diverged

pytestmark = pytest.mark.usefixtures("tracked")
LIMIT = 100  # steps; an epoch of the digits has 38


class Fragile(torch.nn.Module):
    """Its loss is NaN after `LIMIT` steps."""

    def __init__(self, image_shape, classes):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.head = torch.nn.Linear(3 * 32 * 32, classes)

    def forward(self, images):
        logits = self.head(images.flatten(1))
        if self.training:
            self.steps += 1
            logits = logits * torch.where(self.steps > LIMIT, torch.nan, 1.0)
        return logits


FRAGILE = [
    *DIGITS,
    "model._target_=test_divergence.Fragile",
    *(f"~model.{key}" for key in ("filters", "kernel_size", "dense_width", "blocks", "dropout")),
]


@pytest.mark.parametrize(
    "others", [(), ("early_stopping.restore_best=false",), ("training.ema=0.9", "evaluation.calibrate=false")]
)
def test_its_best_epoch_is_kept(others, here):
    with pytest.raises(Diverged, match=r"loss is nan in epoch 3, step 25; try optimizer\.lr below 0\.001; .*epoch 2"):
        run(compose_config([*FRAGILE, "training.epochs=5", *others]))
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    (kept,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert kept.info.status == "FAILED" and kept.data.tags["failure"].startswith("Diverged: loss is nan in epoch 3")
    calibrated = "evaluation.calibrate=false" not in others
    for name in ("temperature", "kept/val_ece", "kept/val_calibrated_loss"):
        assert (name in kept.data.metrics) == calibrated
    assert kept.data.metrics["best/epoch"] == 2 and kept.data.tags["test_set_evaluations"] == "0"
    artifacts = {file.path for file in client.list_artifacts(kept.info.run_id)}
    assert {"report.html", "history.csv", "config.yaml"} <= artifacts and ("coverage.csv" in artifacts) == calibrated
    assert not configurations([to_point(client, kept)], "val/accuracy")[0].finished
    (model,) = client.search_logged_models([kept.info.experiment_id])
    (path,) = here.glob(f"mlruns/**/{model.model_id}/artifacts/data/model.pt2")
    weights = torch.export.load(path).state_dict
    (checkpoint,) = here.glob("outputs/runs/*/checkpoint.pt")
    saved = torch.load(checkpoint, weights_only=True)
    expected = saved["best"] or saved["model"]
    assert torch.equal(weights["network.head.weight"], expected["network.head.weight"])
    assert weights["network.head.weight"].isfinite().all()


def test_the_same_command_tells_the_same_again(here):
    settings = compose_config([*FRAGILE, "training.epochs=5", "tracking=none"])
    messages = []
    for _ in range(2):
        with pytest.raises(Diverged) as caught:
            run(settings)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and list(here.glob("outputs/runs/*/artifacts/report.html"))


def test_without_a_good_epoch_there_is_only_the_message(here):
    settings = compose_config([*DIGITS, "optimizer=sgd", "optimizer.lr=100", "tracking=none"])
    with pytest.raises(Diverged, match=r"^loss is (nan|inf) in epoch 1, step \d+; try optimizer\.lr below 100$"):
        run(settings)
