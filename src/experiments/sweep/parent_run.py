"""The parent run of a multirun in MLflow: found or started, its points read, its results kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Metric, Run, RunTag

from experiments.comparison.comparison import Comparison
from experiments.comparison.loading import STATUS, to_point
from experiments.comparison.points import Point, latest
from experiments.config import Config
from experiments.runs import provenance, store


class Parent:
    """One multirun in MLflow; the same name in the same experiment finds it again.

    Attributes:
        run_id: MLflow's.
    """

    def __init__(self, config: Config, name: str, overrides: Sequence[str]) -> None:
        assert config.tracking.uri is not None
        self.uri = config.tracking.uri.rstrip("/")
        self.client = store.connect(self.uri)
        self.experiment_id = store.experiment_id(self.client, config)
        key = identify(config, name)
        with store.creation_lock(config):
            found = self.client.search_runs([self.experiment_id], f"tags.{store.TAG_MULTIRUN} = '{key}'", max_results=1)
            if config.resume and found:
                self.run_id: str = found[0].info.run_id
                self.client.update_run(self.run_id, status=store.RUNNING)
            else:
                tags = {store.TAG_MULTIRUN: key, store.TAG_TEST_SET_EVALUATIONS: "0"}
                tags |= {**store.override_tags(overrides), **provenance.provenance_tags()}
                run = self.client.create_run(self.experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
                self.run_id = run.info.run_id

    def children(self) -> list[Run]:
        """The points as MLflow's runs, in the order in which they were started."""
        return store.child_runs(self.client, self.experiment_id, self.run_id)

    def points(self) -> list[Point]:
        return latest([to_point(self.client, run) for run in self.children()])

    def conclude(self, comparison: Comparison, folder: Path) -> None:
        """Keep what the multirun came to, and the report in `folder`; FAILED where a point did, else FINISHED."""
        winner, now = comparison.winner, int(time.time() * 1000)
        tags = {store.TAG_TEST_SET_EVALUATIONS: str(len(comparison.tested))}
        tags |= {store.TAG_OBJECTIVES: " ".join(comparison.objectives)}
        values = []
        if winner:
            tags |= {store.TAG_WINNER: winner.run_id}
            tags |= {store.TAG_WINNER_COMMAND: comparison.winner_command[: store.MAX_TAG]}
            kept = {name: value for name, value in winner.metrics.items() if name.startswith(("best/", "test/"))}
            values = [Metric(name, value, now, 0) for name, value in kept.items()]
        self.client.log_artifacts(self.run_id, str(folder))
        self.client.log_batch(self.run_id, values, tags=[RunTag(name, text) for name, text in tags.items()])
        self.close(store.FAILED if comparison.count("failed") else store.FINISHED)

    def close(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)

    def stop(self, status: str) -> None:
        """Close it before its time; of points that were under way in other processes, none is left as running."""
        for run in self.children():
            if run.info.status not in STATUS:
                self.client.set_terminated(run.info.run_id, store.KILLED)
        self.close(status)

    def url(self) -> str:
        return store.how_to_open(self.uri, self.experiment_id, self.run_id)


def identify(config: Config, name: str) -> str:
    """What stands for a multirun of that name: 12 hexadecimal digits made of experiment and name."""
    return hashlib.sha256(json.dumps([config.tracking.experiment, name]).encode()).hexdigest()[:12]
