"""MLflow's store: how it is opened and searched, and the names, statuses and limits of all its runs."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import filelock
import requests
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.store.entities import PagedList
from requests.adapters import HTTPAdapter
from sqlalchemy import Engine, event
from urllib3 import Retry

from experiments.config import Config, UserError
from experiments.config.command_line import mask_passwords
from experiments.config.metrics import EPOCH_METRICS
from experiments.files.atomic import replace_synced

SQLITE = "sqlite:///"

MAX_NAME = 250  # characters of the name of a run, a metric, a parameter, or a tag
MAX_TAG = 5000  # characters of a tag's value
MAX_PARAM = 6000  # characters of a parameter's value
MAX_BATCH = 100  # parameters per request
PAGE = 1000  # runs per request

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"  # MLflow's statuses

TAG_PARENT = "mlflow.parentRunId"  # one per run; a point may belong to several multiruns
TAG_MEMBER = "point_of."  # and the id of a multirun's parent run: the name of the run in this multirun
TAG_FINGERPRINT = "fingerprint"  # only training runs have it
TAG_OVERRIDES = "overrides"
TAG_TEST_SET_EVALUATIONS = "test_set_evaluations"
TAG_PRUNED = "pruned"
TAG_THREADS = "threads"  # CPU threads of the process that started the run
TAG_HELD_BY = "held_by"  # machine and folder of the process that works on the run, or did last
TAG_FAILURE = "failure"
TAG_EVALUATED_RUN = "evaluated_run"  # of the evaluation of a finished run
TAG_MULTIRUN = "sweep"  # only the parent runs of multiruns have this and the tags below
TAG_CONFIG_DIR = "config_dir"  # the user's folder of YAML files
TAG_OBJECTIVES = "objectives"
TAG_WINNER = "winner"
TAG_WINNER_COMMAND = "winner_command"

T = TypeVar("T")

os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a run prints its own URL
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial MLflow database tables..."
logging.getLogger("alembic").setLevel(logging.WARNING)


def resolve(uri: str) -> str:
    """The address with an absolute path: MLflow caches stores by address, even if the working directory changes."""
    if not uri.startswith(SQLITE):
        return uri.rstrip("/")
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).expanduser().resolve()}"


def connect(uri: str, patient: bool = False) -> MlflowClient:
    """A client of the store; a SQLite store that does not exist is created, with its schema.

    Args:
        patient: wait up to two minutes for a server that is being restarted.

    Raises:
        UserError: the server does not answer (MLflow itself would try for minutes), or the store cannot be used.
    """
    if uri.startswith("http"):
        tries = Retry(7, backoff_factor=1, backoff_max=60, status_forcelist=(502, 503, 504)) if patient else 0
        try:
            with requests.Session() as session:
                session.mount("http", HTTPAdapter(max_retries=tries))
                session.get(f"{uri}/health", timeout=5).raise_for_status()
        except requests.RequestException as error:
            raise UserError(f"tracking.uri={uri}: no MLflow server answers there ({type(error).__name__})") from None
    elif uri.startswith(SQLITE):
        _create_store(Path(uri.removeprefix(SQLITE)))
    try:
        client = MlflowClient(resolve(uri))
        client.search_experiments(max_results=1)
    except Exception as error:  # of SQLAlchemy, of MLflow, or of a database driver that is not installed
        raise UserError(f"tracking.uri={uri}: cannot be used ({str(error).splitlines()[0]})") from None
    return client


def connect_existing(uri: str, advice: str) -> MlflowClient:
    """A client of a store that exists already.

    Raises:
        UserError: as `connect`; or there is no store, and the message gives the advice.
    """
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise UserError(f"{uri.removeprefix(SQLITE)}: there are no runs here; {advice}")
    return connect(uri)


def _create_store(database: Path) -> None:
    """Create a SQLite store completely or not at all: its schema takes seconds, and other runs may start meanwhile."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(database.with_name(f".{database.name}.lock")):
        if database.exists():
            return
        for left in database.parent.glob(".mlflow-*"):  # by a process that was killed here
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=database.parent, prefix=".mlflow-") as folder:
            partial = Path(folder) / "new.db"
            event.listen(Engine, "connect", _without_waiting)
            try:
                MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
            finally:
                event.remove(Engine, "connect", _without_waiting)
            replace_synced(partial, database)


def _without_waiting(connection: sqlite3.Connection, _: object) -> None:
    """Do not wait for the disk after each of a hundred migrations: the file is deleted if one fails."""
    connection.execute("PRAGMA synchronous=OFF")


def creation_lock(config: Config) -> filelock.FileLock:
    """Ensures that only one of several processes that start together creates an MLflow experiment or a parent run."""
    outputs = Path(config.outputs)
    outputs.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(outputs / ".mlflow.lock")


def experiment_id(client: MlflowClient, config: Config) -> str:
    """The id of the MLflow experiment that `config` names; it is created if it does not exist.

    Raises:
        UserError: it was deleted.
    """
    name = config.experiment
    place = Path(config.tracking.artifacts).resolve() / quote(name, safe="")
    artifacts = place.as_uri() if (config.tracking.uri or "").startswith("sqlite") else None
    with creation_lock(config):
        known = client.get_experiment_by_name(name)
        if known is None:
            return client.create_experiment(name, artifacts, {"mlflow.experimentKind": "custom_model_development"})
    if known.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserError(f"tracking.experiment={name}: was deleted in MLflow; restore it there, or choose another name")
    return known.experiment_id


def experiment_ids(client: MlflowClient) -> dict[str, str]:
    """The id of each MLflow experiment, by its name."""
    found = _every(lambda token: client.search_experiments(page_token=token))
    return {experiment.name: experiment.experiment_id for experiment in found}


def search_runs(
    client: MlflowClient, experiment_ids: Sequence[str], condition: str, order: str = "start_time DESC"
) -> list[Run]:
    """All runs that meet MLflow's filter condition, however many there are."""
    places = list(experiment_ids)
    return _every(lambda token: client.search_runs(places, condition, ViewType.ACTIVE_ONLY, PAGE, [order], token))


def _every(fetch: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All results of a search that returns them page by page."""
    page = fetch(None)
    found = list(page)
    while page.token:
        page = fetch(page.token)
        found += page
    return found


def child_runs(client: MlflowClient, experiment_id: str, run_id: str) -> list[Run]:
    """The runs of a multirun, in the order in which they were started."""
    found = search_runs(client, [experiment_id], f"tags.`{TAG_MEMBER}{run_id}` != ''", "start_time ASC")
    # earlier versions set no other tag than MLflow's
    return found or search_runs(client, [experiment_id], f"tags.`{TAG_PARENT}` = '{run_id}'", "start_time ASC")


def member_tags(parent_id: str, name: str) -> dict[str, str]:
    """The tags of a run that make it a point of a multirun, with this name."""
    return {TAG_PARENT: parent_id, f"{TAG_MEMBER}{parent_id}": name[:MAX_TAG]}


def how_to_open(uri: str, experiment_id: str, run_id: str) -> str:
    """The command, or the address, that shows a run in MLflow."""
    if uri.startswith("http"):
        return f"{uri}/#/experiments/{experiment_id}/runs/{run_id}"
    return "mlflow ui" if resolve(uri) == resolve("sqlite:///mlflow.db") else f"mlflow ui --backend-store-uri {uri}"


def metric_history(client: MlflowClient, run_id: str, names: Sequence[str] = EPOCH_METRICS) -> list[dict[str, float]]:
    """The metrics of each epoch so far, the first epoch first; one query per name."""
    epochs: dict[int, dict[str, float]] = {}
    for name in names:
        for value in client.get_metric_history(run_id, name):
            epochs.setdefault(value.step, {})[name] = value.value
    return [epochs[step] for step in sorted(epochs)]


def safe_name(name: str) -> str:
    """A metric's name in the characters that MLflow allows; any other, as in a class name, is replaced by its number."""
    allowed = (letter if letter.isalnum() or letter in "_-./ :" else f"_{ord(letter):x}_" for letter in name)
    return "".join(allowed)[:MAX_NAME]


def override_tags(overrides: Sequence[str]) -> dict[str, str]:
    """The overrides as tags, without passwords: `overrides`, and if they are too long, `overrides.2` and so on."""
    text = mask_passwords(shlex.join(overrides))
    size = MAX_TAG - 1  # earlier versions cut the text at MAX_TAG, so a tag of that length is known to be incomplete
    chunks = [text[start : start + size] for start in range(0, max(len(text), 1), size)]
    return {_overrides_tag(number): chunk for number, chunk in enumerate(chunks, start=1)}


def read_overrides(tags: Mapping[str, str]) -> list[str]:
    """The overrides in a run's tags; only the complete ones, if an earlier version cut them."""
    text, number = tags.get(TAG_OVERRIDES, ""), 1
    complete = len(text) < MAX_TAG
    while (tag := _overrides_tag(number := number + 1)) in tags:
        text += tags[tag]
    while True:
        text = text if complete else text.rpartition(" ")[0]
        try:
            return shlex.split(text)
        except ValueError:  # cut between quotation marks
            complete = False


def _overrides_tag(number: int) -> str:
    return TAG_OVERRIDES if number == 1 else f"{TAG_OVERRIDES}.{number}"
