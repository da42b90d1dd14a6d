"""An MLflow server that dies, answers with errors, loses replies or hangs: training goes on, and everything is stored once."""

import csv
import os
import signal
import threading
import time

import pytest
from mlflow import MlflowClient
from proxy import Proxy, free_port

from conftest import DIGITS, typed
from experiments.analysis.evaluate_run import evaluate_run
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs import outbox, server, store
from experiments.runs.finished import load_run

EPOCHS = 4
SMALL = [*DIGITS, "model.filters=2", "model.dense_width=8", "early_stopping.patience=null", f"training.epochs={EPOCHS}"]
TIMED = ("seconds", "epoch_seconds", "images_per_second")


PATIENCE = 1.5


@pytest.fixture
def proxy(mlflow_server, monkeypatch):
    for module in (outbox, server):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", PATIENCE)
    found = Proxy(free_port(), mlflow_server[0])
    yield found
    found.end()


def settings(proxy, here, *overrides):
    return compose_config([*SMALL, f"tracking.uri={proxy.uri}", f"tracking.experiment={here.name}", *overrides])


def check_complete(proxy, here):
    """MLflow has one run, and of it everything that is in outputs/, once."""
    client = MlflowClient(f"http://127.0.0.1:{proxy.to}")
    place = client.get_experiment_by_name(here.name).experiment_id
    (found,) = client.search_runs([place])
    (history,) = here.glob("outputs/runs/*/artifacts/history.csv")
    with history.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == EPOCHS
    for name in set(rows[0]) - {"epoch"}:
        values = client.get_metric_history(found.info.run_id, name)
        assert sorted((each.step, each.value) for each in values) == [
            (int(row["epoch"]), float(row[name])) for row in rows
        ]
    final = [name for name in found.data.metrics if name.startswith(("kept/", "best/", "test/"))]
    assert len(final) > 10 and all(len(client.get_metric_history(found.info.run_id, name)) == 1 for name in final)
    assert found.info.status == "FINISHED" and found.data.tags["test_set_evaluations"] == "1"
    listed = {file.path for folder in (None, "figures") for file in client.list_artifacts(found.info.run_id, folder)}
    files = {path.relative_to(history.parent).as_posix() for path in history.parent.rglob("*")}
    assert files == listed and "report.html" in files
    (model,) = client.search_logged_models([place])
    assert str(model.status) == "READY" and [each.model_id for each in found.outputs.model_outputs] == [model.model_id]
    assert len(found.inputs.dataset_inputs) == 3 and found.data.params["training.epochs"] == str(EPOCHS)
    assert not list(here.glob("outputs/runs/*/journal.jsonl")) and not list(here.glob("outputs/runs/*/model"))
    return found


@pytest.mark.parametrize("fault", [500, "lose"])
def test_every_third_request_fails(fault, proxy, here):
    def fail(count, _):
        return "pass" if count % 3 else fault

    proxy.mode = fail
    result = run(settings(proxy, here))
    assert proxy.faults > 10
    assert check_complete(proxy, here).data.metrics["test/loss"] == result.metrics["test/loss"]
    proxy.mode = lambda count, path: "pass"
    finished = load_run(result.run_id, uri=proxy.uri)
    assert finished.membership  # is read now
    proxy.mode = fail
    evaluated = evaluate_run(finished, None, [], None)
    client = MlflowClient(f"http://127.0.0.1:{proxy.to}")
    child = client.get_run(evaluated.run_id)
    assert child.info.status == "FINISHED" and evaluated.metrics.items() <= child.data.metrics.items()
    assert "report.html" in {file.path for file in client.list_artifacts(evaluated.run_id)}
    assert client.get_run(result.run_id).data.tags["test_set_evaluations"] == "2"


def test_a_server_that_dies_and_returns_after_the_run(proxy, here, capsys):
    def kill(epoch, _):
        if epoch == 2:
            proxy.end()
        return False

    result = run(settings(proxy, here), should_prune=kill)
    said = " ".join(capsys.readouterr().out.split())
    assert "not sent to the MLflow server:" in said and "the report, the model, the final metrics, the status" in said
    assert "this sends it: python train.py" in said and "predict.py" not in said
    (folder,) = here.glob("outputs/runs/*-*")
    assert (folder / "artifacts/report.html").exists() and (folder / "model/MLmodel").exists()
    again = run(settings(proxy, here))
    said = capsys.readouterr().out
    assert "finished already" in said and "epoch   1/4" not in said
    assert again.metrics == result.metrics and again.history == result.history
    with pytest.raises(UserError, match=r"tracking.uri=.*: no MLflow server answers there"):
        run(settings(proxy, here, "seed=2"))
    with Proxy(proxy.server_port, proxy.to) as back:
        once_more = run(settings(back, here))
        assert "finished already" in capsys.readouterr().out
        stored = check_complete(back, here)
        back.end()
    assert once_more.metrics["test/loss"] == stored.data.metrics["test/loss"] == result.metrics["test/loss"]


def test_a_point_of_a_multirun_waits_for_a_server_that_is_restarted(proxy, monkeypatch):
    def restart(record):
        said.append(record.getMessage())
        servers.append(Proxy(proxy.server_port, proxy.to))

    said, servers = [], []
    proxy.end()
    with monkeypatch.context() as patch:
        patch.setattr(server.log, "handle", restart)
        assert store.connect(proxy.uri, patient=True).search_experiments()
    servers[0].end()
    assert said == [f"tracking.uri={proxy.uri}: no MLflow server answers there; waiting for it, two minutes at most"]
    monkeypatch.setattr(server, "LONG_SECONDS", 0.1)
    with pytest.raises(server.Unreachable, match=r"^tracking.uri=http://127.*: no MLflow server answers there \(Conn"):
        store.connect(proxy.uri, patient=True)


def test_a_server_that_hangs_holds_no_epoch_up(proxy, here, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    began = []

    def hang(epoch, _):
        proxy.mode = lambda count, path: "hang"
        began.append(time.monotonic())
        return False

    run(settings(proxy, here), should_prune=hang)
    assert began[-1] - began[0] < 2 * (EPOCHS - 1)  # as long as an epoch would wait for a reply
    proxy.mode = lambda count, path: "pass"
    run(settings(proxy, here))
    check_complete(proxy, here)


def killed(folder, overrides):
    """The body of a process that loses its server in epoch 2, and is killed in epoch 3."""
    os.chdir(folder)

    def kill(epoch, _):
        (folder / "down").touch()
        if epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    run(compose_config(overrides), should_prune=kill)


@pytest.mark.slow
def test_a_killed_run_is_continued_without_its_server(proxy, here, start):
    expected = run(compose_config([*SMALL, "tracking=none", "outputs=expected"]))
    proxy.mode = lambda count, _: 503 if (here / "down").exists() else "pass"
    process = start(killed, here, [*SMALL, f"tracking.uri={proxy.uri}", f"tracking.experiment={here.name}"])
    process.join()
    assert process.exitcode == -signal.SIGKILL
    result = run(settings(proxy, here))
    assert [epoch["val/loss"] for epoch in result.history] == [epoch["val/loss"] for epoch in expected.history]
    assert len(list(here.glob("outputs/runs/*/journal.jsonl"))) == 1
    (here / "down").unlink()
    run(settings(proxy, here))
    assert check_complete(proxy, here).data.metrics["test/loss"] == expected.metrics["test/loss"]
    assert not [thread for thread in threading.enumerate() if thread.name == "outbox" and not thread.daemon]


def impatient(folder, *arguments):
    """The body of a process: `python train.py -m ...`, which gives a server up sooner."""
    outbox.PATIENCE_SECONDS = server.PATIENCE_SECONDS = PATIENCE
    typed(folder, "-m", *arguments)


SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(0.001,0.01)"]


@pytest.mark.slow
@pytest.mark.parametrize(("points", "tested"), [(["seed=1,2"], 2), (SEARCH, 1)], ids=["grid", "search"])
def test_a_multirun_ends_without_its_server(points, tested, proxy, here, start, multirun):
    state = {"runs": 0, "down": False}

    def mode(_, path):
        state["runs"] += path.endswith("runs/create")
        state["down"] |= state["runs"] == 3 and path.endswith("log-batch")  # the parent, and two points
        return 503 if state["down"] and state["runs"] < 4 else "pass"

    proxy.mode = mode
    command = [
        *SMALL[:-1],
        "training.epochs=1",
        *points,
        f"tracking.uri={proxy.uri}",
        f"tracking.experiment={here.name}",
    ]
    process = start(impatient, here, *command)
    process.join()
    said = " ".join((here / "output.txt").read_text().split())
    assert (
        process.exitcode == 0
        and "not sent to the MLflow server: the ranking" in said
        and "this sends them and tests the winner: python train.py -m" in said
    )
    proxy.mode = lambda count, path: "pass"
    code, output = multirun(here, *command)
    assert code == 0 and "not sent" not in output
    client = MlflowClient(f"http://127.0.0.1:{proxy.to}")
    runs = client.search_runs([client.get_experiment_by_name(here.name).experiment_id])
    assert [each.info.status for each in runs] == ["FINISHED"] * 3
    # and the multirun itself has the metrics of its winner:
    assert sum("test/loss" in each.data.metrics for each in runs) == tested + 1 and "epoch   1/1" not in output
