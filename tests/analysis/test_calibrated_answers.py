"""Everything that answers with probabilities gives the calibrated ones; metrics of the network as it was trained stay theirs.

`tests/commands/test_run.py` has the MLflow model and the served one, `tests/analysis/test_export.py` the exported files.
"""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from mlflow import MlflowClient
from PIL import Image
from torch.nn import functional

from experiments import notebook
from experiments.analysis.explanation import explain, mistakes
from experiments.analysis.prediction import predict_image
from experiments.analysis.rejection import find_rejection
from experiments.config import UserError
from experiments.runs.logged_model import LoggedModel
from experiments.training.calibration import calibration_error, fit_temperature
from experiments.training.coverage import COLUMNS, Coverage


@pytest.fixture(scope="module")
def calibrated(trained, test_images):
    """Probabilities of the test images, from the logits of the network and the temperature that was logged."""
    return (trained.logits(test_images) / trained.metrics["temperature"]).softmax(dim=1).numpy()


def test_the_logged_numbers(trained, test_images, calibrated):
    logits, validation, labels = trained.logits(test_images), trained.splits().validation, test_images.labels
    temperature = fit_temperature(trained.logits(validation), validation.labels)
    assert trained.metrics["temperature"] == trained.model.temperature == temperature != 1
    loss = functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert trained.metrics["test/loss"] == pytest.approx(loss, rel=1e-6)
    own = -np.log(np.take_along_axis(calibrated, labels[:, None], axis=1)).mean()
    assert trained.metrics["test/calibrated_loss"] == pytest.approx(own, rel=1e-5)
    assert trained.metrics["test/ece"] == calibration_error(logits.softmax(dim=1).numpy(), labels)
    assert trained.metrics["test/calibrated_ece"] == calibration_error(calibrated, labels)
    squares = ((calibrated - np.eye(10)[labels]) ** 2).sum(axis=1).mean()
    assert trained.metrics["test/calibrated_brier"] == pytest.approx(squares, rel=1e-6)


def test_predictions_explanations_and_notebooks(store, trained, test_images, calibrated):
    with torch.inference_mode():
        own = trained.model(torch.from_numpy(test_images.pixels[:250])).softmax(dim=1).numpy()
    np.testing.assert_allclose(own, calibrated[:250], rtol=1e-5)
    top = float(calibrated[7].max())
    assert predict_image(trained, test_images, 7).top[0][1] == top
    result = notebook.load("best", uri=store)
    assert result.predict(test_images.pixels[7].transpose(1, 2, 0)).top[0][1] == top
    (worst,) = explain(trained, mistakes(trained, 1), "gradcam")
    wrong = calibrated.argmax(axis=1) != test_images.labels
    assert worst.probability == float(calibrated[wrong].max())


def test_the_exported_network_where_the_source_has_changed(trained, test_images, calibrated):
    exported, pixels = LoggedModel(trained.config, trained.logged, False), torch.from_numpy(test_images.pixels[:250])
    with torch.inference_mode():
        np.testing.assert_allclose(exported(pixels).softmax(dim=1), calibrated[:250], rtol=1e-5)
        np.testing.assert_allclose(exported.uncalibrated()(pixels), trained.logits(test_images)[:250], rtol=1e-5)


def test_weights_and_checkpoint_know_no_temperature(finished):
    (file,) = finished[0].glob("mlruns/digits/models/*/artifacts/data/weights.safetensors")
    (saved,) = finished[0].glob("outputs/runs/*/checkpoint.pt")
    names = torch.load(saved, weights_only=True)["model"].keys()
    assert names == safetensors.torch.load_file(file).keys() - {"answer"}


@pytest.fixture(scope="module")
def pictures(test_images, calibrated, tmp_path_factory):
    """(folder with the least and the most certain test picture, their probabilities)."""
    folder, order = tmp_path_factory.mktemp("pictures"), calibrated.max(axis=1).argsort()
    for name, row in (("a", order[0]), ("b", order[-1])):
        Image.fromarray(test_images.pixels[row].transpose(1, 2, 0)).save(folder / f"{name}.png")
    return folder, calibrated.max(axis=1)[order[[0, -1]]].tolist()


def test_what_is_not_certain_enough_is_unsure(store, trained, pictures, command):
    folder, (low, high) = pictures
    validation = trained.splits().validation
    table = Coverage.of(trained.probabilities(validation), validation.labels)
    row = table.decided_at(0.995)
    assert 0 < row < len(table.images) - 1 and low < table.threshold[row] < high
    found = find_rejection(trained, 0.995)
    assert (found.threshold, found.coverage) == (table.threshold[row], table.coverage[row])
    options = ("a.png", "b.png", "--uri", store, "--reject", "0.995")
    done = command("scripts/predict.py", *options, "--json", cwd=folder)
    assert done.returncode == 0 and str(found) in done.stderr
    unsure, sure = json.loads(done.stdout)
    assert (unsure["class"], unsure["unsure"], unsure["probability"]) == ("unsure", True, low)
    assert (sure["class"], sure["unsure"], sure["probability"]) == (sure["top"][0]["class"], False, high)
    assert unsure["top"][0]["probability"] == low
    done = command("scripts/predict.py", *options, "--csv", cwd=folder)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["class"] for row in rows] == ["unsure", sure["class"]]
    done = command("scripts/predict.py", *options, cwd=folder)
    share = f"{100 * low:.1f} %"
    assert f"a.png   unsure   {share}" in done.stdout and f"{unsure['top'][0]['class']} {share}," in done.stdout
    assert not any(find_rejection(trained, 0.5).rejects(probability) for probability in (0.01, low))


def test_without_a_threshold_there_is_a_message(store, trained, tmp_path):
    client = MlflowClient(store)
    place = client.create_experiment("tables", artifact_location=str(tmp_path))
    none = r"no probability gives that accuracy .*the highest is 0\.7000, of the 100\.0 % "
    for rows, message in {
        None: r"has no coverage\.csv: an earlier version made it; train it again",
        "": r"coverage\.csv cannot be used: it is not a table",
        "0.9,half,0.6,5": r"coverage\.csv cannot be used: ",
        "0.9,0.5,0.6,5\n0.1,1.0,0.7,10": none,
    }.items():
        run_id = client.create_run(place).info.run_id
        if rows is not None:
            client.log_text(run_id, f"{','.join(COLUMNS)}\n{rows}", "coverage.csv")
        with pytest.raises(UserError, match=message):
            find_rejection(dataclasses.replace(trained, run_id=run_id), 0.95)


def test_the_report_shows_both_and_the_validation_table(finished, trained):
    (table,) = finished[0].glob("mlruns/digits/*/artifacts/coverage.csv")
    assert table.read_text().splitlines()[-1].endswith(",300")
    page = table.with_name("report.html").read_text(encoding="utf-8")
    before, after = (trained.metrics[f"test/{name}"] for name in ("ece", "calibrated_ece"))
    assert f"<b>{after:.3f}</b><span>expected calibration error; {before:.3f} before calibration" in page
    assert f"before: calibration error {before:.3f}" in page and f"after: {after:.3f}, temperature" in page
    assert "Accuracy at coverage</h2>" in page
