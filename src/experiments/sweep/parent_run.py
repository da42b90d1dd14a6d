"""The parent run of a multirun in MLflow: finds or creates it, reads its children, stores its results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Run, RunTag

from experiments.comparison.comparison import Comparison
from experiments.comparison.loading import status_of, to_point
from experiments.comparison.points import Point, Status, with_distinct_names
from experiments.config import Config
from experiments.config.command_line import Command
from experiments.runs import provenance, store
from experiments.runs.abandoned import holder
from experiments.runs.delivery import log_files
from experiments.runs.evaluation_count import repair_test_count
from experiments.runs.pool import Epochs
from experiments.runs.server import Unreachable


@dataclass(frozen=True)
class Child:
    """A run of the multirun, in its current state in MLflow.

    Attributes:
        metrics: the last value of each metric.
        started, ended: seconds since 1970; `ended` is None while it is running, and after it was killed.
        reason: why it failed, or after which epoch it was pruned; else empty.
    """

    run_id: str
    name: str
    status: Status
    metrics: Mapping[str, float]
    started: float
    ended: float | None
    reason: str

    @classmethod
    def from_mlflow(cls, run: Run, name: str) -> Child:
        info = run.info
        status, reason = status_of(run)
        ended = info.end_time / 1000 if info.end_time and status not in ("running", "killed") else None
        return cls(info.run_id, name, status, run.data.metrics, info.start_time / 1000, ended, reason)


class Parent:
    """The run of one multirun in MLflow; the same folder in the same MLflow experiment finds it again.

    Args:
        folder: of the multirun; its name identifies the multirun.

    Attributes:
        run_id: in MLflow.
    """

    def __init__(self, config: Config, name: str, folder: Path, command: Command) -> None:
        assert config.tracking.uri is not None
        self.uri = config.tracking.uri.rstrip("/")
        self.client = store.connect(self.uri)
        self.experiment_id = store.experiment_id(self.client, config)
        with store.creation_lock(config):  # processes that start together create one run
            found = self.client.search_runs(
                [self.experiment_id], f"tags.{store.TAG_MULTIRUN} = '{folder.name}'", max_results=1
            )
            if config.resume and found:
                self.run_id: str = found[0].info.run_id
                self.client.update_run(self.run_id, status=store.RUNNING)
            else:
                tags = {store.TAG_MULTIRUN: folder.name, store.TAG_TEST_SET_EVALUATIONS: "0"}
                tags[store.TAG_DESCRIPTION] = store.MULTIRUN
                tags |= {**store.override_tags(command.overrides), **provenance.provenance_tags()}
                tags |= {store.TAG_CONFIG_DIR: command.config_dir} if command.config_dir else {}
                run = self.client.create_run(self.experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
                self.run_id = run.info.run_id
            self.client.set_tag(self.run_id, store.TAG_HELD_BY, holder(folder))

    def children(self) -> list[Child]:
        """The runs of the multirun, in the order in which they were started."""
        return [Child.from_mlflow(run, name) for run, name in self._runs()]

    def points(self, used: Mapping[str, Set[str]]) -> list[Point]:
        """The same runs with their settings and histories, ready to be compared.

        Args:
            used: {name of points: ids of their runs}. Another run of that name leaves the multirun: it was computed on
                another device, for example.
        """
        found = []
        for run, name in self._runs():
            if run.info.run_id in (used.get(name) or {run.info.run_id}):
                repair_test_count(self.client, run)
                found.append(to_point(self.client, run, self.run_id))
            else:
                self.client.delete_tag(run.info.run_id, self._tag)
        return with_distinct_names(found)

    def _runs(self) -> list[tuple[Run, str]]:
        """The runs with their names in this multirun."""
        found = store.child_runs(self.client, self.experiment_id, self.run_id)
        return [(run, run.data.tags.get(self._tag, run.info.run_name)) for run in found]

    @property
    def _tag(self) -> str:
        return f"{store.TAG_MEMBER}{self.run_id}"

    def finalize(self, comparison: Comparison, folder: Path) -> None:
        """Store the results and the report in `folder`; the status is FAILED if anything failed, else FINISHED."""
        winner, now = comparison.winner, int(time.time() * 1000)
        tags = {store.TAG_TEST_SET_EVALUATIONS: str(len(comparison.tested))}
        tags |= {store.TAG_OBJECTIVES: " ".join(comparison.objectives)}
        values = []
        if winner:
            runs = [run.run_id for run in winner.finished][: store.MAX_TAG // 33]  # an id has 32 digits
            tags |= {store.TAG_WINNER: " ".join(runs)}
            if len(comparison.winner_command) <= store.MAX_TAG:  # half a command is none
                tags |= {store.TAG_WINNER_COMMAND: comparison.winner_command}
            shown = ("kept/", "best/", "test/")
            kept = {name: value for name, value in winner.metrics.items() if name.startswith(shown)}
            if test := comparison.test_accuracy:
                spread = {f"test/accuracy_{end}": getattr(test, end) for end in ("sd", "low", "high")}
                kept |= {name: value for name, value in spread.items() if math.isfinite(value)}
            known = self.client.get_run(self.run_id).data.metrics  # by an earlier command
            named = {store.safe_name(name): value for name, value in kept.items()}
            values = [Metric(name, value, now, 0) for name, value in named.items() if known.get(name) != value]
        log_files(self.client, self.run_id, folder)
        self.client.log_batch(self.run_id, values, tags=[RunTag(name, text) for name, text in tags.items()])
        self.client.set_terminated(self.run_id, store.FAILED if comparison.failed else store.FINISHED)

    def count_epochs(self, epochs: Epochs) -> None:
        """Store how many epochs the points have trained, and how many they took over from each other."""
        counts = {store.TAG_EPOCHS_TRAINED: epochs.trained, store.TAG_EPOCHS_SAVED: epochs.saved}
        self.client.log_batch(self.run_id, tags=[RunTag(name, str(count)) for name, count in counts.items()])

    def stop(self, status: str) -> None:
        """Set the status of a multirun that ends early; its runs in other processes are marked as KILLED."""
        with contextlib.suppress(Unreachable):  # the error that ended the multirun is shown, not this one
            for child in self.children():
                if child.status == "running":
                    store.close(self.client, child.run_id, store.KILLED, {})
            self.client.set_terminated(self.run_id, status)

    def url(self) -> str:
        """How to open the run in MLflow: an address or a command."""
        return store.how_to_open(self.uri, self.experiment_id)
