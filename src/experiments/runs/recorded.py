"""What MLflow has of a finished run, read without building its network.

recorded = read_run("best")
recorded.config, recorded.logged.weights, recorded.run.data.tags
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.config import Config, UserError
from experiments.config.composition import with_defaults
from experiments.config.metrics import DEFAULT_FINAL
from experiments.data.membership import FILE, Membership
from experiments.runs import store
from experiments.runs.export import missing_files, read_model, read_yaml
from experiments.runs.finding import STORE, find_run
from experiments.runs.logged_model import Logged, damaged

if TYPE_CHECKING:
    from mlflow.entities import Run


class Recorded(NamedTuple):
    """What MLflow has of a finished run, read without building its network.

    Attributes:
        saved: its configuration as it was saved.
        config: the same with today's names of the keys, and defaults for those that it lacks.
    """

    uri: str
    run: Run
    saved: Mapping[str, Any]
    config: Config
    logged: Logged


def read_run(
    which: str = "latest",
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = STORE,
    data: str | None = None,
) -> Recorded:
    """Read the run that `find_run` returns.

    Raises:
        UserError: there is no such run, or its files are missing or damaged.
    """
    uri = store.resolve(uri)
    run = find_run(which, experiment, metric, uri, data)
    run_id = run.info.run_id
    logged = read_model(uri, run.info.experiment_id, run_id)
    with missing_files(run_id):
        settings = artifact(uri, run_id, "config.yaml")
    saved = read_yaml(run_id, "config.yaml", settings, "data", "model")
    try:
        return Recorded(uri, run, saved, with_defaults(saved), logged)
    except (UserError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise damaged(run_id, "config.yaml", error) from None


def has_artifact(uri: str, run_id: str, name: str) -> bool:
    return name in [file.path for file in store.connect(uri).list_artifacts(run_id)]


def read_membership(uri: str, run_id: str) -> Membership | None:
    """The pictures of a run's splits; None if an earlier version made the run, which did not keep them."""
    if not has_artifact(uri, run_id, FILE):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Membership.read(Path(store.connect(uri).download_artifacts(run_id, FILE, folder)))


def artifact(uri: str, run_id: str, name: str) -> bytes:
    """The content of one of a run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(store.connect(uri).download_artifacts(run_id, name, folder)).read_bytes()
