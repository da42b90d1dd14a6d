"""MLflow's store: found, or created whole; and the experiments in it."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import filelock
import requests
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from requests.adapters import HTTPAdapter
from sqlalchemy import Engine, event
from urllib3 import Retry

from experiments.config import Config, UserError
from experiments.config.metrics import EPOCH_METRICS
from experiments.files.atomic import replace_synced

PARENT = "mlflow.parentRunId"


def safe_name(name: str) -> str:
    """A metric's name without what MLflow refuses, which becomes its number: a class may be called anything."""
    fitting = (letter if letter.isalnum() or letter in "_-./ :" else f"_{ord(letter):x}_" for letter in name)
    return "".join(fitting)[:250]


os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line of ours says where to look
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial MLflow database tables..."
logging.getLogger("alembic").setLevel(logging.WARNING)


def resolve(uri: str) -> str:
    """The address with an absolute path: MLflow keeps stores by their address, also when the working directory changes."""
    if not uri.startswith("sqlite:///"):
        return uri.rstrip("/")
    return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).expanduser().resolve()}"


def connect(uri: str, patient: bool = False) -> MlflowClient:
    """A client whose store is there and has its schema.

    Args:
        patient: wait up to two minutes for a server that is being restarted.

    Raises:
        UserError: where a server does not answer; MLflow itself would try for minutes.
    """
    if uri.startswith("http"):
        tries = Retry(7, backoff_factor=1, backoff_max=60, status_forcelist=(502, 503, 504)) if patient else 0
        try:
            with requests.Session() as session:
                session.mount("http", HTTPAdapter(max_retries=tries))
                session.get(f"{uri}/health", timeout=5).raise_for_status()
        except requests.RequestException as error:
            raise UserError(f"tracking.uri={uri}: no MLflow server answers there ({type(error).__name__})") from None
    elif uri.startswith("sqlite:///"):
        _create_store(Path(uri.removeprefix("sqlite:///")))
    try:
        client = MlflowClient(resolve(uri))
        client.search_experiments(max_results=1)
    except Exception as error:  # SQLAlchemy's, a database driver's that is not installed, MLflow's own
        raise UserError(f"tracking.uri={uri}: cannot be used ({str(error).splitlines()[0]})") from None
    return client


def _create_store(database: Path) -> None:
    """A new SQLite store, whole or not at all: its schema takes seconds, in which other runs start or this one dies."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(database.with_name(f".{database.name}.lock")):
        if database.exists():
            return
        for left in database.parent.glob(".mlflow-*"):  # by a process that died here
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
    """A hundred small migrations would each wait for the disk, seconds in all, for a file that is thrown away if one fails."""
    connection.execute("PRAGMA synchronous=OFF")


def experiment_id(client: MlflowClient, config: Config) -> str:
    """The id of the MLflow experiment that `config` names; created where there is none.

    Raises:
        UserError: where it was deleted.
    """
    name = config.tracking.experiment
    place = Path(config.tracking.artifacts).resolve() / quote(name, safe="")
    artifacts = place.as_uri() if (config.tracking.uri or "").startswith("sqlite") else None
    outputs = Path(config.outputs)
    outputs.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(outputs / ".mlflow.lock"):  # runs that start together make it once
        known = client.get_experiment_by_name(name)
        if known is None:
            return client.create_experiment(name, artifacts, {"mlflow.experimentKind": "custom_model_development"})
    if known.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserError(f"tracking.experiment={name}: was deleted in MLflow; restore it there, or take another name")
    return known.experiment_id


def how_to_open(uri: str, experiment_id: str, run_id: str) -> str:
    """What to type, or where to go, to see a run in MLflow."""
    if uri.startswith("http"):
        return f"{uri}/#/experiments/{experiment_id}/runs/{run_id}"
    return "mlflow ui" if resolve(uri) == resolve("sqlite:///mlflow.db") else f"mlflow ui --backend-store-uri {uri}"


def metric_history(client: MlflowClient, run_id: str, names: Sequence[str] = EPOCH_METRICS) -> list[dict[str, float]]:
    """The metrics of each epoch so far, the first epoch first; a query a name."""
    metrics = {name: client.get_metric_history(run_id, name) for name in names}
    epochs: dict[int, dict[str, float]] = {}
    for name, values in metrics.items():
        for value in values:
            epochs.setdefault(value.step, {})[name] = value.value
    return [epochs[step] for step in sorted(epochs)]
