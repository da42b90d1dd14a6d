"""MLflow's store: opened, searched, and what does not fit into it."""

import dataclasses
import logging
import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest
from sqlalchemy import Engine, event

from conftest import DIGITS
from experiments.analysis import evaluate_run
from experiments.comparison.loading import find_comparison
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.foreign import mask_passwords
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs import local_store, store
from experiments.runs.finished import STORE, load_run


def test_a_server_that_does_not_answer_is_reported(here):
    with pytest.raises(UserError, match="no MLflow server answers"):
        run(compose_config([*DIGITS, "tracking.uri=http://127.0.0.1:9"]))


def test_a_deleted_experiment_is_reported(tracked):
    from mlflow import MlflowClient

    overrides = [*DIGITS, "training.epochs=1"]
    run(compose_config(overrides))
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    with pytest.raises(UserError, match=r"tracking\.experiment=digits: was deleted"):
        run(compose_config(overrides))


LONG = ["data=digits", *(f"model.note{number}='it is {number} words long'" for number in range(500)), "seed=1"]


@pytest.mark.parametrize("overrides", [[], ["data=digits", "seed=1"], ["x=a b", "y='"], LONG, ["a=" + "b" * 20_000]])
def test_overrides_of_any_length_are_kept_whole(overrides):
    tags = store.override_tags(overrides)
    assert store.read_overrides(tags) == overrides
    assert all(len(value) <= store.MAX_TAG for value in tags.values())
    assert tags["overrides"] == shlex.join(overrides)[: store.MAX_TAG - 1]


def test_passwords_are_not_kept():
    tags = store.override_tags(["tracking.uri=postgresql://me:secret@host/db"])
    assert tags == {"overrides": "'tracking.uri=postgresql://me:***@host/db'"}


@pytest.mark.parametrize("overrides", [LONG, ["a=" + "b" * 20_000]])
def test_overrides_that_an_earlier_version_cut_are_read(overrides):
    found = store.read_overrides({"overrides": shlex.join(overrides)[: store.MAX_TAG]})
    assert found == overrides[: len(found)] and (len(found) > 100 or overrides is not LONG)


@pytest.mark.usefixtures("tracked")
def test_a_search_returns_more_than_a_page(monkeypatch):
    client = store.connect("sqlite:///mlflow.db")
    places = [client.create_experiment(name) for name in ("a", "b")]
    runs = [client.create_run(places[number % 2]).info.run_id for number in range(5)]
    monkeypatch.setattr(store, "PAGE", 2)
    found = store.search_runs(client, places, "attributes.status = 'RUNNING'", "start_time ASC")
    assert {run.info.run_id for run in found} == set(runs) and len(found) == 5
    assert store.experiment_ids(client) == {"Default": "0", "a": places[0], "b": places[1]}


SECRET = "geheim1"
ADDRESSES = [
    f"postgresql://me:{SECRET}@host/db",
    f"http://me:{SECRET}%40%2Fx@host:5000",
    f"mysql://me:{SECRET}/x@y@host/db",
    f"https://{SECRET}@host/data.tar.gz",
    f"https://host/data.tar.gz?name=a&X-Amz-Signature={SECRET}&b=1",
    f"[http://host:80/a,http://me:{SECRET}'x@host/b,https://host/c?token={SECRET}]",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_passwords_of_every_form_are_masked(address):
    for text in (mask_passwords(address), str(Command((f"x={address}",))), str(mask_passwords({"a": [address]}))):
        assert SECRET not in text and "***" in text and "host" in text


@pytest.mark.parametrize("text", ["postgresql://me@host/db", "http://host:5000/#/experiments/1", "a@b", "w.zip?x=1"])
def test_other_addresses_stay_as_they_are(text):
    assert mask_passwords(text) == text


@pytest.mark.parametrize("name", ["..", ".", "../../x", "/a/b", "ü" * 300, "a b", "%2e%2e"])
def test_names_never_become_paths(name, ready_store, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    ready_store(project)
    config = compose_config([*DIGITS, f"tracking.artifacts={project}/mlruns", f"outputs={project}/outputs"])
    tracking = dataclasses.replace(config.tracking, experiment=name, uri=f"sqlite:///{project}/mlflow.db")
    client = store.connect(tracking.uri)
    place = store.experiment_id(client, dataclasses.replace(config, tracking=tracking))
    run_id = client.create_run(place).info.run_id
    client.log_text(run_id, "text", "note.txt")
    (file,) = tmp_path.glob(f"project/mlruns/*/{run_id}/artifacts/note.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["project"]
    assert len(file.parents[2].name) <= 64


@pytest.mark.usefixtures("tracked")
def test_a_name_that_mlflow_refuses_is_reported():
    with pytest.raises(UserError, match=r"tracking\.experiment=aaa.*250"):
        run(compose_config([*DIGITS, f"tracking.experiment={'a' * 251}"]))


@pytest.mark.parametrize("name", ["why?", "a#b", "50%20", "a b", "ü?%3F#"])
def test_a_folder_with_any_name(name, tmp_path, monkeypatch):
    project = tmp_path / name
    project.mkdir()
    monkeypatch.chdir(project)
    done = run(compose_config([*DIGITS, "training.epochs=1", "model.filters=2", "model.dense_width=8"]))
    assert load_run(done.run_id).metrics.items() >= done.metrics.items()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert {entry.name for entry in project.iterdir()} >= {"mlflow.db", "mlruns", "outputs"}
    assert list(project.glob(f"mlruns/digits/{done.run_id}/artifacts/config.yaml"))


@pytest.mark.parametrize("earlier", [False, True], ids=["", "of an earlier version"])
@pytest.mark.parametrize("tool", [shutil.move, shutil.copytree])
def test_a_project_that_is_moved(tool, earlier, ready_store, tmp_path, monkeypatch, caplog):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ready_store(old)
    monkeypatch.chdir(old)
    tiny = [*DIGITS, "training.epochs=1", "model.filters=2", "model.dense_width=8"]
    first = run(compose_config(tiny))
    if earlier:
        with sqlite3.connect("mlflow.db") as database:
            database.execute("DELETE FROM experiment_tags")
        database.close()
    tool(old, new)
    before = sorted((tmp_path / "old").rglob("*"))
    monkeypatch.chdir(new)
    trained = load_run(first.run_id)
    assert trained.metrics.items() >= first.metrics.items() and f"artifacts are now in {new}/mlruns\n" in caplog.text
    evaluation = evaluate_run.evaluate_run(trained, None, [], None)
    second = run(compose_config([*tiny, "seed=1"]))
    for run_id in (first.run_id, second.run_id, evaluation.run_id):
        assert list(new.glob(f"mlruns/digits/{run_id}/artifacts/report.html"))
    assert [point.status for point in find_comparison([first.run_id, second.run_id], STORE, []).points] == [
        "finished"
    ] * 2
    assert sorted((tmp_path / "old").rglob("*")) == before and caplog.text.count("artifacts are now in") == 1
    client = store.connect(STORE)
    assert str(old) not in str(
        [client.get_run(first.run_id), client.search_logged_models(["1"]), client.get_experiment("1")]
    )


def test_of_a_database_that_is_copied_alone_old_runs_keep_their_files(ready_store, tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    ready_store(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    tiny = [*DIGITS, "training.epochs=1", "model.filters=2", "model.dense_width=8"]
    first = run(compose_config(tiny))
    shutil.copy("mlflow.db", tmp_path / "new")
    before = sorted((tmp_path / "old").rglob("*"))
    monkeypatch.chdir(tmp_path / "new")
    assert load_run(first.run_id).metrics.items() >= first.metrics.items()
    second = run(compose_config([*tiny, "seed=1"]))
    assert list(tmp_path.glob(f"new/mlruns/digits/{second.run_id}/artifacts/report.html"))
    assert load_run(second.run_id).run_id == second.run_id and sorted((tmp_path / "old").rglob("*")) == before


def test_artifacts_elsewhere_stay_there(ready_store, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    ready_store(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    tiny = [*DIGITS, "training.epochs=1", "model.filters=2", f"tracking.artifacts={tmp_path}/disk/mlruns"]
    first = run(compose_config(tiny))
    shutil.move(tmp_path / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert load_run(first.run_id).metrics.items() >= first.metrics.items()
    shutil.move(tmp_path / "disk", tmp_path / "unmounted")
    with pytest.raises(UserError, match="its files are missing"):
        load_run(first.run_id)


def test_nothing_of_the_user_is_deleted(here):
    (here / ".mlflow-backup").mkdir()
    (here / ".mlflow-backup/mine.txt").write_text("mine")
    opening = "import sys; from experiments.runs import store; store.connect(sys.argv[1]).search_experiments()"
    both = [subprocess.Popen([sys.executable, "-c", opening, f"sqlite:///{name}.db"]) for name in "ab"]  # in one folder
    assert [process.wait() for process in both] == [0, 0]
    assert {entry.name for entry in here.iterdir()} == {"a.db", "b.db", ".a.db.lock", ".b.db.lock", ".mlflow-backup"}
    assert (here / ".mlflow-backup/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "address", ["sqlite:///{}", "sqlite:///{}/file/x.db", "sqlite:///{}/file", "oracle://a/b", "sqlite:////proc/x/y.db"]
)
def test_a_store_that_cannot_be_opened_is_reported_at_once(address, here):
    (here / "file").write_text("no database")
    before, since = list(here.rglob("*")), time.monotonic()
    with pytest.raises(UserError, match=r"tracking\.uri=.*: cannot be used \("):
        store.connect(address.format(here))
    assert time.monotonic() - since < 3 and list(here.rglob("*")) == before


HOLD = """
import sqlite3, sys
database = sqlite3.connect("mlflow.db", isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locked(tracked):
    """(client, run id, the process that holds a lock on the database until its input is closed)"""
    client = store.connect(STORE)
    run_id = client.create_run("0").info.run_id
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield client, run_id, process


class Release(logging.Handler):
    """Ends the lock when the user is told about it."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def emit(self, record):
        if "another process has locked" in record.getMessage():
            self.process.stdin.close()


def test_logging_waits_for_a_database_that_is_locked(locked, monkeypatch, capfd):
    client, run_id, process = locked
    monkeypatch.setattr(local_store, "LOCK_SECONDS", 0.2)
    release = Release(process)
    local_store.log.addHandler(release)
    client.log_metric(run_id, "val/loss", 0.5)
    local_store.log.removeHandler(release)
    assert process.stdin.closed, "nobody was told"
    assert [value.value for value in client.get_metric_history(run_id, "val/loss")] == [0.5]
    assert "Traceback" not in capfd.readouterr().err


def test_a_lock_that_never_ends_is_an_error(locked, monkeypatch):
    client, run_id, _ = locked
    monkeypatch.setattr(local_store, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(local_store, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(Exception, match="database is locked"):
        client.log_metric(run_id, "val/loss", 0.5)
    with pytest.raises(UserError, match=r"cannot be used .*database is locked"):
        store.connect(STORE)


def test_a_database_that_cannot_be_opened_any_more_is_named(tracked):
    """SQLite can write no journal, as on a disk that the system has made read-only after an error: here, no file can be opened."""
    client = store.connect(f"sqlite:///{tracked}/mlflow.db")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.open(os.devnull, os.O_RDONLY)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Input/output error: .*mlflow\.db"):
            client.create_experiment("a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_disk_that_is_full_is_named(tracked):
    def fill(connection, _):
        connection.execute("PRAGMA max_page_count=1")  # SQLite takes the number of pages that it has already

    event.listen(Engine, "connect", fill)
    try:
        client = store.connect("sqlite:///mlflow.db")
        with pytest.raises(OSError, match=r"No space left on device: .*mlflow\.db"):
            for number in range(1000):
                client.create_experiment(f"{number}")
    finally:
        event.remove(Engine, "connect", fill)
