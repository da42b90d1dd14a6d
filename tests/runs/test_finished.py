"""Finished runs are found by what names them."""

import sys
from pathlib import Path

import pytest
import yaml

from conftest import DIGITS
from experiments.analysis.evaluate_run import evaluate_run
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.experiment import run as train
from experiments.notebook import Result
from experiments.runs.finding import find_run
from experiments.runs.finished import load_run


@pytest.fixture
def forget(monkeypatch):
    """A function that makes the next import of a network read its files again, as another process does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forgotten(name):
        for module in (name, f"{name}_parts"):
            sys.modules.pop(module, None)
        return name

    return forgotten


def test_runs_are_found_by_what_names_them(store, trained):
    assert find_run("latest", uri=store).info.run_id == trained.run_id
    assert find_run(trained.run_id[:6], "digits", uri=store).info.run_id == trained.run_id
    for arguments, message in [
        (("nonsense",), "--run nonsense: no finished run has an id with this start; the latest are "),
        (("best", "cifar"), "--experiment cifar: there is no such MLflow experiment; there are .*digits"),
        (("best", None, "best/nothing"), "--metric best/nothing: no finished run has it; there are best/epoch"),
    ]:
        with pytest.raises(UserError, match=message):
            find_run(*arguments, uri=store)
    with pytest.raises(UserError, match="there are no runs here"):
        find_run("latest", uri="sqlite:///nowhere.db")


@pytest.fixture
def many(here, tracked):
    """(client, the ids of finished runs, the oldest first): more than a message lists."""
    from experiments.runs import store

    client = store.connect("sqlite:///mlflow.db")
    ids = []
    for number in range(8):
        run = client.create_run("0", start_time=number + 1, tags={store.TAG_FINGERPRINT: str(number)})
        client.set_terminated(run.info.run_id, store.FINISHED)
        ids.append(run.info.run_id)
    return client, ids


def test_an_id_is_looked_for_among_all_runs(many):
    client, ids = many
    others = {"evaluation": client.create_run("0"), "unfinished": client.create_run("0", tags={"fingerprint": "x"})}
    client.set_terminated(others["evaluation"].info.run_id)
    for run_id in ids:
        assert find_run(run_id, uri="sqlite:///mlflow.db").info.run_id == run_id
    assert find_run("latest", uri="sqlite:///mlflow.db").info.run_id == ids[-1]
    for which in (*(run.info.run_id for run in others.values()), "%", "_", "' or '1' = '1", ids[0].upper() + "X"):
        with pytest.raises(UserError, match="no finished run has an id with this start"):
            find_run(which, uri="sqlite:///mlflow.db")


def test_a_run_is_found_by_the_digits_in_its_name(many):
    client, _ = many
    uri = "sqlite:///mlflow.db"

    def finish(fingerprint):
        run = client.create_run("0", tags={"fingerprint": fingerprint})
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    only, _, other = finish("c0ffee" + 58 * "0"), finish("c0ffe1" + 58 * "0"), finish("facade" + 58 * "0")
    assert find_run("c0ffee", uri=uri).info.run_id == find_run("c0ffee00", uri=uri).info.run_id == only
    assert find_run("facade", uri=uri).info.run_id == other
    again = finish("facade" + 58 * "0")  # with resume=false: it computed the same
    assert find_run("facade", uri=uri).info.run_id == again
    finish("facade" + 58 * "1")
    with pytest.raises(UserError, match="--run facade: more than one run has an id with this start"):
        find_run("facade", uri=uri)
    with pytest.raises(UserError, match="no finished run has an id with this start"):
        find_run("c0ffef", uri=uri)


RUNS = {
    "small and slow": {"kept/val_loss": 0.5, "best/val_loss": 0.1, "seconds": 90, "parameters": 10, "test/f1/a b": 0.2},
    "fast": {"kept/val_loss": 0.4, "best/val_loss": 0.4, "seconds": 3, "parameters": 30, "test/f1/a b": 0.3},
    "of an older version": {"best/val_loss": 0.3, "val/loss": 0.35, "seconds": 5, "parameters": 20},
    "not a number": {"kept/val_loss": float("nan"), "test/f1/a b": float("nan")},
}
BEST = {
    "kept/val_loss": "of an older version",
    "val/loss": "of an older version",
    "best/val_loss": "small and slow",
    "seconds": "fast",
    "parameters": "small and slow",
    "test/f1/a b": "fast",
}


def test_the_best_run_keeps_the_best_weights_and_less_cost_is_better(many):
    client, _ = many
    for number, (name, metrics) in enumerate(RUNS.items()):
        run = client.create_run("0", run_name=name, tags={"fingerprint": f"best {number}"})
        for metric, value in metrics.items():
            client.log_metric(run.info.run_id, metric, value)
        client.set_terminated(run.info.run_id)
    found = {metric: find_run("best", metric=metric, uri="sqlite:///mlflow.db").info.run_name for metric in BEST}
    assert found == BEST
    assert find_run("best", uri="sqlite:///mlflow.db").info.run_name == BEST["kept/val_loss"]


def test_the_best_run_is_no_lucky_fold(many, caplog):
    client, uri = many[0], "sqlite:///mlflow.db"

    def finish(name, loss, **params):
        run = client.create_run("0", run_name=name, tags={"fingerprint": name}).info.run_id
        for key, value in params.items():
            client.log_param(run, key.replace("__", "."), value)
        client.log_metric(run, "kept/val_loss", loss)
        client.set_terminated(run)

    for filters, losses in ((8, (0.5, 0.52)), (16, (0.1, 0.95))):
        for fold, loss in enumerate(losses):
            finish(f"{filters} {fold}", loss, model__filters=filters, data__fold=fold, seed=1)
    assert find_run("best", uri=uri).info.run_name == "8 0"
    assert "first run of the configuration with the best mean over folds" in caplog.text
    finish("whole", 0.6, model__filters=8, data__fold=None, seed=1)
    assert find_run("best", uri=uri).info.run_name == "whole"
    assert "4 runs of folds were not compared" in caplog.text


def test_two_runs_with_the_same_start_are_named(many):
    starts = [run_id[0] for run_id in many[1]]
    while len(set(starts)) == len(starts):  # until two begin with the same digit, of sixteen
        run = many[0].create_run("0", tags={"fingerprint": "y"})
        many[0].set_terminated(run.info.run_id)
        starts.append(run.info.run_id[0])
    twice = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(
        UserError, match=f"--run {twice}: more than one run has an id with this start; these are {twice}"
    ):
        find_run(twice, uri="sqlite:///mlflow.db")


@pytest.fixture
def two_data_sets(here, tracked):
    """The ids of finished runs: of digits, then of a folder under two spellings, then of another folder; oldest first."""
    from mlflow.entities import Metric, Param

    from experiments.runs import store

    client = store.connect("sqlite:///mlflow.db")
    folder = {"data.name": "image_folder", "data._target_": "experiments.data.sources.image_folder.ImageFolder"}
    ids = []
    for number, params in enumerate(
        ({"data.name": "digits"}, {**folder, "data.root": "pics"}, {**folder, "data.root": f"{here}/pics/"})
    ):
        place = client.create_experiment(f"of run {number}")
        run = client.create_run(place, start_time=number + 1, tags={store.TAG_FINGERPRINT: str(number)}).info.run_id
        client.log_batch(
            run, [Metric("best/val_accuracy", number / 10, 0, 0)], [Param(*item) for item in params.items()]
        )
        client.set_terminated(run, store.FINISHED)
        ids.append(run)
    return ids


@pytest.mark.parametrize("which", ["best", "latest"])
def test_runs_of_several_data_sets_are_told_apart(two_data_sets, which):
    def found(**options):
        return find_run(which, metric="best/val_accuracy", uri="sqlite:///mlflow.db", **options).info.run_id

    there = r"\n  digits \(1 run, in MLflow experiment of run 0\)\n  pics \(2 runs, in MLflow experiment of run 1, of run 2\)\n"
    with pytest.raises(UserError, match=rf"--run {which}: the finished runs are of 2 data sets:{there}choose .*--data"):
        found()
    with pytest.raises(UserError, match="--data cats: no finished run is of this data set; there are digits, pics"):
        found(data="cats")
    assert found(data="digits") == found(experiment="of run 0") == two_data_sets[0]
    assert found(data="pics") == found(data="./pics") == two_data_sets[2]
    assert found(experiment="of run 1") == two_data_sets[1]
    assert find_run(two_data_sets[0][:9], uri="sqlite:///mlflow.db").info.run_id == two_data_sets[0]


def test_two_folders_of_the_same_name_are_two_data_sets(two_data_sets, here):
    from mlflow import MlflowClient
    from mlflow.entities import Param

    from experiments.runs import store

    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    run = client.create_run("0", tags={store.TAG_FINGERPRINT: "x"}).info.run_id
    client.log_batch(run, params=[Param("data.name", "image_folder"), Param("data.root", "other/pics")])
    client.set_terminated(run, store.FINISHED)
    with pytest.raises(
        UserError, match=r"2 data sets:\n  pics \(1 run.*\)\n  pics \(2 runs.*\nchoose one by its folder: --data "
    ):
        find_run("latest", uri="sqlite:///mlflow.db", data="pics")
    assert find_run("latest", uri="sqlite:///mlflow.db", data="other/pics").info.run_id == run


NETWORK = """
from torch import nn
from {name}_parts import scale

class Net(nn.Module):
    def __init__(self, image_shape, classes):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4)
        self.head = nn.Linear(4 * 8 * 8, classes)

    def forward(self, images):
        return self.head(scale(self.convolution(images)).flatten(1))
"""
PARTS = "def scale(features):\n    return features.{act}\n"


def own_run(name):
    """A finished run of a network in two files; returns its result."""
    Path(f"{name}.py").write_text(NETWORK.format(name=name))
    Path(f"{name}_parts.py").write_text(PARTS.format(act="relu()"))
    keys = [f"~model.{key}" for key in ("filters", "kernel_size", "dense_width", "blocks", "dropout")]
    return train(compose_config([*DIGITS, "training.epochs=1", f"model._target_={name}.Net", *keys]))


def ours(caplog):
    """The warnings of this project; torch.export logs much more."""
    return [record.getMessage() for record in caplog.records if record.name == "experiments.runs.finished"]


def evaluated(run_id, trust=False):
    """(test accuracy of the run, evaluated again from MLflow, the run)."""
    found = load_run(run_id, uri="sqlite:///mlflow.db", trust=trust)
    test = found.splits().test
    return (found.logits(test.pixels).argmax(dim=1).numpy() == test.labels).mean(), found


@pytest.mark.parametrize("change", ["a helper", "the network", "other weights", "no file"])
@pytest.mark.usefixtures("tracked")
def test_a_run_whose_source_has_changed_is_opened_by_its_logged_model(change, here, caplog, forget):
    name = forget(f"net_{change.replace(' ', '_')}")
    result = own_run(name)
    assert evaluated(result.run_id)[0] == result.metrics["test/accuracy"] and not ours(caplog)
    forget(name)
    if change == "a helper":
        Path(f"{name}_parts.py").write_text(PARTS.format(act="clamp(-9e9, 0.01)"))
    elif change == "the network":
        Path(f"{name}.py").write_text(NETWORK.format(name=name).replace("scale(", "(lambda x: x)("))
    elif change == "other weights":
        Path(f"{name}.py").write_text(NETWORK.format(name=name).replace("convolution", "first"))
    else:
        Path(f"{name}.py").unlink()
    accuracy, found = evaluated(result.run_id)
    assert accuracy == result.metrics["test/accuracy"]
    files = {"a helper": f"{name}_parts.py has", "no file": f"{name}.py, {name}_parts.py have"}
    expected = f"run {result.run_id[:8]}: {files.get(change, f'{name}.py has')} changed since: its logged model is used"
    assert ours(caplog) == [expected]
    assert evaluate_run(found, None, [], None).metrics["test/accuracy"] == accuracy
    ((_, shape, parameters),) = Result(found).network.itertuples(index=False)
    assert shape == (10,) and parameters == result.metrics["parameters"]
    assert found.model.eval() is found.model and found.model.train(False) is found.model


@pytest.mark.usefixtures("tracked")
def test_a_run_from_before_sources_were_recorded_is_compared_with_its_logged_model(here, caplog, forget):
    name = forget("net_unrecorded")
    result = own_run(name)
    for described in here.glob("mlruns/**/MLmodel"):
        content = yaml.safe_load(described.read_text())
        del content["metadata"]["sources"]
        described.write_text(yaml.safe_dump(content))
    assert evaluated(result.run_id, trust=True)[0] == result.metrics["test/accuracy"] and not ours(caplog)
    forget(name)
    assert evaluated(result.run_id)[0] == result.metrics["test/accuracy"] and name not in sys.modules
    assert f"run {result.run_id[:8]}: {name}.Net is not imported without --trust: its logged model is used" in ours(
        caplog
    )
    Path(f"{name}_parts.py").write_text(PARTS.format(act="abs()"))
    assert evaluated(result.run_id, trust=True)[0] == result.metrics["test/accuracy"]
    assert f"run {result.run_id[:8]}: its network computes other values now: its logged model is used" in ours(caplog)
