"""The finished run that a command names: the latest, the best, or one by the start of its id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.config import UserError
from experiments.config.defaults import default
from experiments.config.keys import SHOWN_DIGITS
from experiments.config.metrics import DEFAULT_FINAL
from experiments.runs import store
from experiments.runs.best import best_run
from experiments.runs.data_sets import all_have_that_of, of_one_data_set

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STORE: str = default("tracking.uri")
# Only training runs have a fingerprint; evaluations of them and the parents of multiruns have no model.
FINISHED_RUNS = f"status = '{store.FINISHED}' and tags.{store.TAG_FINGERPRINT} != ''"


def find_run(
    which: str,
    experiment: str | None = None,
    metric: str = DEFAULT_FINAL,
    uri: str = STORE,
    data: str | None = None,
) -> Run:
    """The finished run that `which` names: `best` by `metric`, `latest`, an id, or the start of an id.

    Args:
        data: the data set of the run, for `best` and `latest`: its name, or the folder of the pictures.

    Raises:
        UserError: there is no such run, or more than one; or `best` or `latest` could be of several data sets.
    """
    advice = "train one: python train.py data=digits"
    client = store.connect_existing(uri, advice)
    known = store.experiment_ids(client)
    if experiment is not None and experiment not in known:
        raise UserError(f"--experiment {experiment}: there is no such MLflow experiment; there are {', '.join(known)}")
    places = [known[experiment]] if experiment else list(known.values())
    latest = client.search_runs(places, FINISHED_RUNS, order_by=["start_time DESC"], max_results=5)
    if not latest:
        raise UserError(f"there is no finished run yet; {advice}")
    if which not in ("best", "latest"):
        return _with_id(client, places, which, latest)
    if which == "latest" and data is None:

        def search(condition: str) -> Sequence[Run]:
            return client.search_runs(places, f"{FINISHED_RUNS} and {condition}", max_results=1)

        if all_have_that_of(latest[0], search):
            return latest[0]
    runs = of_one_data_set(store.search_runs(client, places, FINISHED_RUNS), which, data, known)
    return best_run(runs, metric) if which == "best" else runs[0]


def _with_id(client: MlflowClient, places: list[str], start: str, latest: Sequence[Run]) -> Run:
    """The only finished run whose id, or whose fingerprint, which ends its name, has this start."""
    keys = ["attributes.run_id", f"tags.{store.TAG_FINGERPRINT}"][: 1 if len(start) < SHOWN_DIGITS else 2]
    if not re.fullmatch("[0-9a-f]+", start):  # an id contains none of MLflow's wildcards or quotation marks
        keys = []
    conditions = (f"{FINISHED_RUNS} and {key} LIKE '{start}%'" for key in keys)
    found = (client.search_runs(places, one, order_by=["start_time DESC"], max_results=5) for one in conditions)
    fitting: Sequence[Run] = next(filter(None, found), [])
    if len({run.data.tags[store.TAG_FINGERPRINT] for run in fitting}) == 1:  # runs of one fingerprint computed the same
        return fitting[0]
    there = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in fitting or latest)
    problem = "more than one run has an id with this start" if fitting else "no finished run has an id with this start"
    raise UserError(f"--run {start}: {problem}; {'these' if fitting else 'the latest'} are {there}")
