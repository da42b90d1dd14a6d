"""What a finished run leaves: on the terminal, in MLflow, on disk."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import DIGITS, FINISHED
from experiments import notebook
from experiments.analysis import evaluate_run
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.config.metrics import EPOCH_METRICS
from experiments.data import load_splits
from experiments.experiment import run
from experiments.models.build import build
from experiments.runs.finished import load_run

FINAL_METRICS = {
    "parameters",
    "trainable_parameters",
    "seconds",
    "kept/epoch",
    "kept/val_loss",
    "kept/val_accuracy",
    "best/epoch",
    "best/val_loss",
    "best/val_accuracy",
    "test/loss",
    "test/accuracy",
    "test/macro_f1",
    "temperature",
    "test/ece",
    "test/brier",
    "test/calibrated_loss",
    "test/calibrated_ece",
    "test/calibrated_brier",
}


@pytest.fixture(scope="session")
def logged(finished):
    """(client, run) of the finished run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished[0]}/mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    (only,) = client.search_runs([experiment.experiment_id])
    return client, only


@pytest.fixture(scope="session")
def artifacts(finished, logged):
    return finished[0] / "mlruns" / "digits" / logged[1].info.run_id / "artifacts"


def test_what_the_terminal_shows(finished, logged):
    output = finished[1]
    for part in ("1,200 train", "225,610 parameters", "epoch   3/3", "test/accuracy", "most confused", "mlflow ui"):
        assert part in output
    assert logged[1].info.run_id in output
    assert (
        f"mlflow ui, then http://127.0.0.1:5000/#/experiments/{logged[1].info.experiment_id}/runs?workflowType=machine_learning"
        in output
    )
    assert output.count("\nepoch ") == 3
    assert "Traceback" not in output and "Warning" not in output


def test_one_metric_per_step(logged):
    client, only = logged
    assert only.info.status == "FINISHED"
    classes = {f"test/f1/{digit}" for digit in range(10)}
    assert only.data.metrics.keys() == {*EPOCH_METRICS} | FINAL_METRICS | classes
    for name in EPOCH_METRICS:
        assert [metric.step for metric in client.get_metric_history(only.info.run_id, name)] == [1, 2, 3]
    for name in FINAL_METRICS | classes:  # MLflow draws bars of metrics whose only step is 0
        assert [metric.step for metric in client.get_metric_history(only.info.run_id, name)] == [0]
    experiment = client.get_experiment(only.info.experiment_id)
    assert "multirun" in experiment.tags["mlflow.note.content"]


def test_params_tags_and_data(logged):
    only = logged[1]
    assert only.data.params["model.filters"] == "32" and only.data.params["early_stopping.monitor"] == "val/loss"
    assert only.data.tags["overrides"] == " ".join(FINISHED)
    assert only.data.tags["test_set_evaluations"] == "1" and len(only.data.tags["fingerprint"]) == 64
    assert only.info.run_name.startswith("data=digits epochs=3")
    inputs = {entry.tags[0].value: json.loads(entry.dataset.profile) for entry in only.inputs.dataset_inputs}
    splits = load_splits(compose_config(list(DIGITS)).data)
    assert inputs["training"] == {"images": 1200, "sha256": splits.train.digest, "classes": 10}
    assert inputs["testing"]["sha256"] == splits.test.digest


def test_artifacts(artifacts, logged):
    metrics = logged[1].data.metrics
    configuration = yaml.safe_load((artifacts / "config.yaml").read_text())
    assert configuration["training"]["epochs"] == 3
    history = list(csv.DictReader((artifacts / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["val/loss"]) == metrics["val/loss"]
    matrix = np.array(
        [
            [int(cell) for cell in row[1:]]
            for row in csv.reader((artifacts / "confusion_matrix.csv").open())
            if row[0] != "true class"
        ]
    )
    assert matrix.sum() == 297 and matrix.trace() / 297 == pytest.approx(metrics["test/accuracy"])
    report = json.loads((artifacts / "classification_report.json").read_text())
    assert report["macro avg"]["f1-score"] == pytest.approx(metrics["test/macro_f1"])
    assert report["3"]["f1-score"] == pytest.approx(metrics["test/f1/3"])
    for name in ("curves", "confusion_matrix"):
        assert Image.open(artifacts / f"figures/{name}.png").size > (500, 300)


def test_the_logged_model_answers_as_the_run_did(finished, logged):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{finished[0]}/mlflow.db")
    uri = f"runs:/{logged[1].info.run_id}/model"
    exported, served = mlflow.pytorch.load_model(uri), mlflow.pyfunc.load_model(uri)
    (saved,) = finished[0].glob("outputs/runs/*/checkpoint.pt")
    settings, classes = compose_config(list(DIGITS)), list("0123456789")
    model = build(settings, len(classes)).eval()
    model.load_state_dict(torch.load(saved, weights_only=True)["best"])
    temperature = logged[1].data.metrics["temperature"]
    assert abs(temperature - 1) > 0.001
    assert served.metadata.metadata["classes"] == classes
    test = load_splits(settings.data).test
    for count in (1, 2, 7, 250):
        pictures = torch.from_numpy(test.pixels[:count])
        with torch.inference_mode():
            expected = model(pictures) / temperature
            assert torch.equal(exported(pictures), expected)
        answer = served.predict(pictures.numpy())
        assert list(answer.columns) == classes
        np.testing.assert_allclose(answer, expected.softmax(dim=1), rtol=0, atol=1e-6)
    with torch.inference_mode():
        right = (exported(torch.from_numpy(test.pixels)).argmax(1).numpy() == test.labels).mean()
    assert right == pytest.approx(logged[1].data.metrics["test/accuracy"])


def test_the_model_holds_no_pickle(finished):
    from torch.export.pt2_archive import PT2ArchiveReader

    (exported,) = finished[0].glob("mlruns/digits/models/*/artifacts/data/model.pt2")
    names = PT2ArchiveReader(str(exported)).get_file_names()
    assert names and not any(name.endswith(".pkl") for name in names)


def test_a_finished_run_prints_its_results_again(finished, logged, command):
    again = command("train.py", *FINISHED, cwd=finished[0])
    client, only = logged
    assert again.returncode == 0 and "finished already" in again.stdout
    assert f"{only.data.metrics['test/accuracy']:.4f}" in again.stdout and only.info.run_id in again.stdout
    assert len(client.search_runs([only.info.experiment_id])) == 1
    assert "CPU threads" not in again.stdout
    other = command("train.py", "data=digits", "threads=2", *FINISHED[2:], cwd=finished[0])
    assert "finished already" in other.stdout
    assert "started with 1 CPU thread; with 2 the last digits may differ" in other.stdout


def test_a_missing_device_is_reported(here):
    with pytest.raises(UserError, match="device=cuda: is not available on this machine"):
        if torch.cuda.is_available():
            pytest.skip("this machine has a CUDA device")
        run(compose_config([*DIGITS, "device=cuda"]))
    assert list(here.iterdir()) == []


def test_tf32_without_cuda_is_reported(here):
    with pytest.raises(UserError, match="precision=tf32: only CUDA has it, and this is device=cpu"):
        run(compose_config([*DIGITS, "device=cpu", "precision=tf32"]))
    assert not list(here.iterdir())


@pytest.mark.usefixtures("tracked")
def test_how_predictions_were_made_is_shown_beside_every_number(here, capsys):
    """A run, its results printed again, its evaluation and its predictions: all are means over the same views."""
    overrides = [*DIGITS, "training.epochs=1", "model.filters=4", "evaluation.tta=flip"]
    result = run(compose_config(overrides))
    first = capsys.readouterr().out
    run(compose_config(overrides))
    for printed in (first, capsys.readouterr().out):
        assert re.search(r"test/accuracy +0\.\d+ +mean over 2 views\n", printed)
    (page,) = here.glob("mlruns/digits/*/artifacts/report.html")
    text = page.read_text(encoding="utf-8")
    assert "% (mean over 2 views)</title>" in text and "test accuracy, mean over 2 views; 95 %" in text
    assert "Every prediction is the mean over 2 views of its image (evaluation.tta=flip)" in text
    trained = load_run(result.run_id)
    test = trained.splits().test
    right = trained.probabilities(test.pixels).argmax(axis=1) == test.labels
    assert right.mean() == pytest.approx(result.metrics["test/accuracy"])
    with torch.inference_mode():
        plain = trained.model(torch.from_numpy(test.pixels))
        mirrored = trained.model(torch.from_numpy(test.pixels).flip(3))
    calibrated = ((plain + mirrored) / 2).softmax(dim=1)
    torch.testing.assert_close(torch.from_numpy(trained.probabilities(test.pixels)), calibrated)
    assert evaluate_run.evaluate_run(trained, None, [], None).metrics["test/loss"] == pytest.approx(
        result.metrics["test/loss"]
    )
    pages = [found for found in here.glob("mlruns/digits/*/artifacts/report.html") if found != page]
    assert "mean over 2 views" in pages[0].read_text(encoding="utf-8")
    assert "(mean over 2 views)" in repr(notebook.Result(trained))


def numbers(result):
    """The final metrics without the time that it took."""
    return {name: value for name, value in result.metrics.items() if name != "seconds"}


def test_resume_false_trains_anew_and_without_mlflow_results_stay_in_outputs(here, capsys):
    overrides = [*DIGITS, "tracking=none", "training.epochs=1"]
    first = run(compose_config(overrides))
    again = run(compose_config(overrides))
    assert (again.metrics, again.history) == (
        first.metrics,
        first.history,
    ) and "finished already" in capsys.readouterr().out
    assert numbers(run(compose_config([*overrides, "resume=false"]))) == numbers(first)
    assert "finished already" not in capsys.readouterr().out
    assert not (here / "mlflow.db").exists()


def test_without_mlflow_a_run_does_not_import_it(here):
    program = (
        "import sys; from experiments.config.loading import compose_config as load; from experiments.experiment import run;"
        "run(load(sys.argv[1:])); sys.exit(bool({'mlflow', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *DIGITS, "tracking=none", "training.epochs=1", "model.filters=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "test/accuracy" in done.stdout, done.stdout + done.stderr


def test_missing_data_is_reported_before_torch_is_imported(here):
    program = (
        "import sys; from experiments.config.loading import compose_config as load; from experiments.experiment import run\n"
        "try: run(load(['data=image_folder', 'data.root=.']))\n"
        "except ValueError as error: print(error); sys.exit(bool({'mlflow', 'torch'} & set(sys.modules)))\n"
        "sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "at least two" in done.stdout, done.stdout + done.stderr


def strange(here, test_pictures):
    """Folders of pictures whose classes have the names that break things."""
    for label, name in enumerate(("[x] $_$", "c+", "c*", "\U0001f642")):
        for number in range(8):
            path = here / f"set/{'train' if number < 8 - test_pictures else 'test'}/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return [
        "data=image_folder",
        "data.root=set",
        "data.image_size=16",
        "data.split=random",
        "threads=1",
        "training.epochs=1",
    ]


@pytest.mark.usefixtures("tracked")
def test_strange_names_and_a_single_test_picture(here, capsys):
    import mlflow

    overrides = [*strange(here, 1), "tracking.run_name='[/y] z'"]
    for name in ("c+", "c*", "\U0001f642"):
        shutil.rmtree(here / f"set/test/{name}")
    for _ in range(2):
        result = run(compose_config(overrides))
        assert "[/y] z" in capsys.readouterr().out
    mlflow.set_tracking_uri(f"sqlite:///{here}/mlflow.db")
    model = mlflow.pytorch.load_model(f"runs:/{result.run_id}/model")
    assert model(torch.zeros((3, 3, 16, 16), dtype=torch.uint8)).shape == (3, 4)


@pytest.mark.usefixtures("tracked")
def test_classes_that_differ_in_signs_alone_keep_their_metrics(here):
    result = run(compose_config(strange(here, 2)))
    assert len([name for name in result.metrics if name.startswith("test/f1/")]) == 4
    from mlflow import MlflowClient

    logged = MlflowClient(f"sqlite:///{here}/mlflow.db").get_run(result.run_id).data.metrics
    assert len([name for name in logged if name.startswith("test/f1/")]) == 4


@pytest.mark.usefixtures("tracked")
def test_a_finished_run_stays_finished_whatever_happens_while_it_is_shown(here, monkeypatch):
    from mlflow import MlflowClient

    from experiments.reports import terminal

    overrides = [*DIGITS, "training.epochs=1"]
    first = run(compose_config(overrides))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "show_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(compose_config(overrides))
    assert MlflowClient(f"sqlite:///{here}/mlflow.db").get_run(first.run_id).info.status == "FINISHED"


@pytest.mark.usefixtures("tracked")
def test_a_run_that_died_on_its_last_step_is_finished(here):
    """All is written but the status: nothing is written twice, the numbers stay, and nothing is left of what it was writing."""
    from mlflow import MlflowClient

    overrides = [*DIGITS, "training.epochs=1", "model.filters=4"]
    first = run(compose_config(overrides))
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    client.update_run(first.run_id, status="RUNNING")
    (model,) = (here / "mlruns").glob("*/models/*/artifacts")
    partial = [
        folder / ".artifact.uploading.a1b2c3d4" for folder in (model.parents[2] / first.run_id / "artifacts", model)
    ]
    for path in partial:
        path.write_bytes(b"half of a file")
    again = run(compose_config(overrides))
    found = client.get_run(first.run_id)
    assert not any(path.exists() for path in partial)
    assert again.metrics == first.metrics and again.run_id == first.run_id and found.info.status == "FINISHED"
    assert len(found.outputs.model_outputs) == len(client.search_logged_models([found.info.experiment_id])) == 1
    assert all(len(client.get_metric_history(first.run_id, name)) == 1 for name in found.data.metrics)
