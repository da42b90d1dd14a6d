"""MLflow's store: how it is opened and searched, and the names, statuses and limits of all its runs."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import filelock
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from experiments.config import Config, UserError
from experiments.config.foreign import mask_passwords
from experiments.config.metrics import EPOCH_METRICS
from experiments.runs import local_store, server
from experiments.runs.databases import database_address, database_file

MAX_NAME = 250  # characters of the name of a run, a metric, a parameter, or a tag
MAX_TAG = 5000  # characters of a tag's value
MAX_PARAM = 6000  # characters of a parameter's value
PAGE = 1000  # runs per request

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"  # MLflow's statuses

TAG_PARENT = "mlflow.parentRunId"  # one per run; a point may belong to several multiruns
TAG_MEMBER = "point_of."  # and the id of a multirun's parent run: the name of the run in this multirun
TAG_DESCRIPTION = "mlflow.note.content"  # shown by MLflow, in Markdown
TAG_FINGERPRINT = "fingerprint"  # only training runs have it
TAG_OVERRIDES = "overrides"
TAG_TEST_SET_EVALUATIONS = "test_set_evaluations"
TAG_PRUNED = "pruned"
TAG_THREADS = "threads"  # CPU threads of the process that started the run
TAG_PROCESSES = "processes"  # that trained it when it was started
TAG_FORKED_FROM = "forked_from"  # RUN_ID:EPOCH, of the run from whose epoch it continues
TAG_EPOCHS_TRAINED, TAG_EPOCHS_SAVED = "epochs_trained", "epochs_saved"  # of a multirun
TAG_HELD_BY = "held_by"  # machine and folder of the process that works on the run, or did last
TAG_FAILURE = "failure"
TAG_EVALUATED_RUN, TAG_EVALUATION = "evaluated_run", "evaluation"  # and the digest of one in several parts
TAG_REPRODUCED_RUN, TAG_VERDICT = "reproduced_run", "verdict"  # of a new training of a finished run
TAG_MULTIRUN = "sweep"  # only the parent runs of multiruns have this and the tags below
TAG_CONFIG_DIR = "config_dir"  # the user's folder of YAML files
TAG_OBJECTIVES = "objectives"
TAG_WINNER = "winner"  # the ids of its runs: one, or one per seed or fold
TAG_WINNER_COMMAND = "winner_command"

# Descriptions, which MLflow shows above an MLflow experiment and in the run of a multirun:
EXPERIMENT = "Image classifiers. `best/*`, `kept/*`, `test/*`: final metrics. A run with a **+** is a multirun."
MULTIRUN = "A multirun. `report.html` ranks and compares its runs; its metrics are those of the winner: means over its seeds or folds."

T = TypeVar("T")

os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a run prints its own URL
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what is handled here
logging.getLogger("alembic").setLevel(logging.WARNING)


def resolve(uri: str) -> str:
    """The address with an absolute path: MLflow caches stores by address, even if the working directory changes."""
    database = database_file(uri)
    return database_address(database) if database else uri.rstrip("/")


def connect(uri: str, patient: bool = False) -> MlflowClient:
    """A client of the store; a SQLite store that does not exist is created, with its schema.

    A call of the client waits while another process has locked a SQLite store, or for seconds if a server does not answer.
    `patient`: wait up to two minutes for a server that is being restarted.

    Raises:
        UserError: the server does not answer (`server.Unreachable`), or the store cannot be used.
    """
    uri = resolve(uri)
    database = database_file(uri)
    try:
        if database:
            local_store.create(database, lambda address: MlflowClient(address).search_experiments(max_results=1))
            local_store.waiting(local_store.relocate, database)
        elif uri.startswith("http"):
            server.reach(uri, patient)
        elif "://" in uri and not uri.startswith("file"):
            sqlalchemy.create_engine(uri).connect().close()  # MLflow would try ten times
        client = MlflowClient(uri)
        if database:
            client = cast(MlflowClient, local_store.WaitingClient(client, database))
        elif uri.startswith("http"):
            client = cast(MlflowClient, server.AskingAgain(client, server.PATIENCE_SECONDS))
        client.search_experiments(max_results=1)
    except server.Unreachable as error:
        raise server.Unreachable(mask_passwords(f"tracking.uri={uri}: {error}")) from None
    except Exception as error:  # of SQLite, of SQLAlchemy, of MLflow, or of a database driver that is not installed
        problem = f"cannot be used ({str(error).splitlines()[0]})"
        raise UserError(mask_passwords(f"tracking.uri={uri}: {problem}")) from None
    return client


def unasked(uri: str) -> MlflowClient:
    """A client of a server that may not answer; none of its calls waits for long."""
    server.ask_once()
    return cast(MlflowClient, server.AskingAgain(MlflowClient(uri.rstrip("/")), patience=1.0))


def connect_existing(uri: str, advice: str) -> MlflowClient:
    """A client of a store that exists already.

    Raises:
        UserError: as `connect`; or there is no store, and the message gives the advice.
    """
    database = database_file(uri)
    if database and not database.exists():
        raise UserError(f"{uri.partition(':///')[2]}: there are no runs here; {advice}")
    return connect(uri)


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
    name, database = config.experiment, database_file(config.tracking.uri or "")
    tags = {"mlflow.experimentKind": "custom_model_development", TAG_DESCRIPTION: EXPERIMENT}
    artifacts = None
    if database:
        artifacts = (Path(config.tracking.artifacts).resolve() / local_store.artifact_folder(name)).as_uri()
        tags[local_store.TAG_ARTIFACTS] = local_store.relative_place(artifacts, database)
    with creation_lock(config):
        known = client.get_experiment_by_name(name)
        if known is None:
            try:
                return client.create_experiment(name, artifacts, tags)
            except MlflowException as error:
                raise UserError(f"tracking.experiment={name}: {error.message}") from None
    if known.lifecycle_stage != LifecycleStage.ACTIVE:
        raise UserError(f"tracking.experiment={name}: was deleted in MLflow; restore it there, or choose another name")
    if database and local_store.TAG_ARTIFACTS not in known.tags:  # of an earlier version
        place = local_store.relative_place(known.artifact_location, database)
        client.set_experiment_tag(known.experiment_id, local_store.TAG_ARTIFACTS, place)
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


def how_to_open(uri: str, experiment_id: str) -> str:
    """The address that shows the runs of an MLflow experiment, after the command that starts MLflow on this machine.

    Without `workflowType` MLflow opens an experiment on its page for language models.
    """
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    if uri.startswith("http"):
        return mask_passwords(f"{uri}/{page}")
    own = resolve(uri) == resolve("sqlite:///mlflow.db")
    command = "mlflow ui" if own else mask_passwords(shlex.join(["mlflow", "ui", "--backend-store-uri", uri]))
    return f"{command}, then http://127.0.0.1:5000/{page}"


def close(client: MlflowClient, run_id: str, status: str, tags: Mapping[str, str], time: int | None = None) -> None:
    """Set the status of a run that ends unfinished, and tags; if another process has finished it, it stays as it is."""
    if client.get_run(run_id).info.status != FINISHED:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        client.set_terminated(run_id, status, time)


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
    text = shlex.join(map(mask_passwords, overrides))
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
