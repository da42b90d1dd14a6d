"""The temperature: against scipy's minimum, within bounds, and without effect on what is not calibrated."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

from experiments.config.loading import compose_config
from experiments.models.build import build
from experiments.training.calibration import HIGHEST, Scores, fit_temperature
from experiments.training.coverage import Coverage


def drawn(count, factor, seed=0):
    """Logits that are `factor` times too large for the labels that are drawn with them."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, 5)) * 2)
    cumulated = logits.softmax(dim=1).numpy().cumsum(axis=1)
    labels = np.minimum((rng.random((count, 1)) > cumulated).sum(axis=1), 4)
    return (factor * logits).float(), labels


@pytest.mark.parametrize("factor", [0.4, 1, 2.5])
def test_it_is_the_minimum_of_the_loss(factor):
    logits, labels = drawn(20_000, factor)

    def loss(logarithm):
        return functional.cross_entropy(logits.double() / np.exp(logarithm), torch.from_numpy(labels)).item()

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    found = fit_temperature(logits, labels)
    assert expected == pytest.approx(factor, rel=0.05)
    assert found == (1 if factor == 1 else pytest.approx(expected, rel=2e-3))  # a gain by chance is none
    before, after = Scores.of(logits, labels), Scores.of(logits / found, labels)
    assert after.ece < 0.015 and after.loss <= before.loss
    assert factor == 1 or (before.ece > 0.05 and after.brier < before.brier)


def test_few_images_change_little_and_never_make_their_own_loss_worse():
    """Where all predictions are right, the loss alone would be best at 0."""
    logits, _ = drawn(1000, 3)
    right = logits.argmax(dim=1).numpy()
    found = [fit_temperature(logits[:count], right[:count]) for count in (1, 10, 100, 1000)]
    assert 1 == found[0] >= found[1] > found[2] > found[3] > 0.1
    for count, temperature in zip((1, 10, 100, 1000), found):
        some, labels = logits[:count], right[:count]
        assert Scores.of(some / temperature, labels).loss <= Scores.of(some, labels).loss


def test_useless_logits_stay_finite():
    logits, _ = drawn(500, 3)
    assert 1 < fit_temperature(100 * logits, logits.argmin(dim=1).numpy()) <= HIGHEST * 1.001
    assert fit_temperature(torch.zeros(10, 3), np.zeros(10, dtype=np.int64)) == pytest.approx(1)
    assert fit_temperature(torch.full((2, 3), torch.nan), np.zeros(2, dtype=np.int64)) == 1


def test_it_is_on_by_default_and_off_for_the_notebook():
    assert compose_config([]).evaluation.calibrate and not compose_config(["experiment=notebook"]).evaluation.calibrate


def test_an_exported_network_divides_also_in_bf16():
    model = build(compose_config(["data=digits", "model.filters=2", "model.dense_width=4"]), 10).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        plain, model.temperature = model(pixels), 2.0
        exported = torch.export.export(model, (pixels,)).module()
        assert torch.equal(exported(pixels), plain / 2) and torch.equal(model.uncalibrated()(pixels), plain)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(exported(pixels).float(), plain / 2, rtol=0.05, atol=0.02)


def test_scores_by_hand():
    logits, labels = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.25, 0.25]]).log(), np.array([0, 1])
    found = Scores.of(logits, labels)
    assert found.loss == pytest.approx(-(np.log(0.6) + np.log(0.25)) / 2)
    assert found.brier == pytest.approx((0.4**2 + 0.3**2 + 0.1**2 + 0.5**2 + 0.75**2 + 0.25**2) / 2)
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.5)  # confidence 0.6 is right, 0.5 is wrong


def test_accuracy_at_coverage_by_hand():
    confidence, right = np.array([0.6, 0.9, 0.8, 0.8, 0.7]), np.array([False, True, True, False, True])
    table = Coverage.of(np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1))
    assert table.threshold.tolist() == [0.9, 0.8, 0.7, 0.6] and table.images.tolist() == [1, 3, 4, 5]
    assert table.coverage.tolist() == [0.2, 0.6, 0.8, 1]
    assert table.accuracy.tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    assert [table.decided_at(accuracy) for accuracy in (0.5, 0.7, 0.75, 0.76, 1)] == [3, 2, 2, 0, 0]
    assert Coverage.of(np.array([[0.4, 0.6]]), np.array([0])).decided_at(0.1) is None


def test_a_table_of_many_images_is_short():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 5000)
    table = Coverage.of(probabilities, np.zeros(5000, dtype=np.int64))
    rows = list(table.thinned().rows())
    assert len(rows) == 1000 and rows[-1] == (table.threshold[-1], 1, table.accuracy[-1], 5000)
