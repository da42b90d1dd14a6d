"""Kills at random moments, and after every commit to a database; each command is then given again and must end as undisturbed.

Half of the kills of a campaign come at a random time, the others at a random change of a file or a database: there is little
time between two changes at the end of a run, but much can go wrong there.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.moments import Moments, kill
from campaigns.outcomes import differences, outcome
from campaigns.processes import OUTPUT, call, run, used_by_ended
from campaigns.works import Work

WITHOUT_STORE = 0.1  # of the runs: MLflow's tables are made by them
BATCH = 7  # at most as many kills before a run may end


@dataclass
class Reference:
    """A command that was not disturbed.

    Attributes:
        outcome: what it left.
        seconds: that it took, see `processes.run`.
        moments, commits: the number of changes of files and databases, and of commits alone.
        store: an MLflow store without runs, to begin with.
    """

    work: Work
    place: Path
    outcome: dict[str, Any]
    seconds: float
    moments: int
    commits: int
    store: Path

    @classmethod
    def of(cls, work: Work, place: Path) -> Reference:
        """Run the command twice, to count its moments and its commits; both must have one outcome."""
        place.mkdir(parents=True, exist_ok=True)
        store = place / "empty.db"
        call(_make_store, store)
        counts, outcomes = [], []
        for commits_only in (False, True):
            folder = fresh(place / "undisturbed", store)
            clock = used_by_ended if work.processes == 1 else time.monotonic
            started = clock()
            watched = (
                Moments(folder, 0, kill, folder, commits_only, folder / "moments") if work.processes == 1 else None
            )
            if (code := run(work, folder, watched)) != 0:
                raise RuntimeError(f"{work.name} ended with {code}: {(folder / OUTPUT).read_text()[-2000:]}")
            seconds = clock() - started
            counts.append((folder / "moments").stat().st_size if watched else 0)
            outcomes.append(outcome(folder))
            shutil.rmtree(folder)
        if found := list(differences(outcomes[0], outcomes[1])):
            raise RuntimeError(f"{work.name} differs from itself: {found}")
        print(
            f"{work.name}: {seconds:.1f} s, {counts[0]} changes of files and databases, {counts[1]} commits", flush=True
        )
        return cls(work, place, outcomes[0], seconds, counts[0], counts[1], store)


def _make_store(file: Path) -> None:
    from experiments.runs.store import connect

    connect(f"sqlite:///{file}")


def fresh(folder: Path, store: Path | None) -> Path:
    """The folder, emptied, with a store."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if store:
        shutil.copy(store, folder / "mlflow.db")
    return folder


@dataclass
class Result:
    """The count of a campaign.

    Attributes:
        kills: that hit the process; `inside`: while there was a checkpoint inside an epoch.
        ended: commands that were given again and compared.
        failures: in words.
    """

    name: str
    kills: int = 0
    inside: int = 0
    ended: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, reference: Reference, folder: Path, title: str) -> None:
        """Give the command again, undisturbed, and compare what it leaves."""
        code = run(reference.work, folder)
        self.ended += 1
        found = [f"exit code {code}: {(folder / OUTPUT).read_text()[-1000:]}"] if code else []
        found = found or list(differences(reference.outcome, outcome(folder)))
        if found:
            self.failures.append(f"{title}: " + "; ".join(found))
            print(f"FAILED {self.name}, {self.failures[-1]}", flush=True)
            shutil.copytree(folder, reference.place / f"failed-{len(self.failures)}", dirs_exist_ok=True)
        shutil.rmtree(folder)


def random_kills(work: Work, count: int, seed: int, place: Path) -> Result:
    """`count` kills of a command, up to `BATCH` before it may end."""
    reference, result = Reference.of(work, place), Result(f"{work.name}: kills at random moments")
    draw = random.Random(f"{work.name} {seed}")
    while result.kills < count:
        begin = draw.random() < WITHOUT_STORE
        folder = fresh(place / "disturbed", None if begin else reference.store)
        title = "" if not begin else "no store, "
        for _ in range(draw.randint(1, min(BATCH, count - result.kills))):
            if work.processes > 1 or draw.random() < 0.5:
                after = draw.uniform(0, reference.seconds)
                title += f"{after:.2f} s, "
                code = run(work, folder, after=after)
            else:
                at = draw.randint(1, reference.moments)
                title += f"moment {at}, "
                code = run(work, folder, Moments(folder, at, kill, folder))
            result.kills += code == -signal.SIGKILL
            result.inside += any(folder.glob("outputs/runs/*/checkpoint-inside-epoch.pt"))
        result.check(reference, folder, title)
        print(f"{result.name}: {result.kills} of {count}, {len(result.failures)} failed", flush=True)
    return result


def after_every_commit(work: Work, place: Path, last: int | None) -> Result:
    """A kill after every commit of a command to a database, each of another run; `last`: after so many of the last ones."""
    reference, result = Reference.of(work, place), Result(f"{work.name}: a kill after every commit")
    for at in range(max(1, reference.commits + 1 - (last or reference.commits)), reference.commits + 1):
        folder = fresh(place / "disturbed", reference.store)
        code = run(work, folder, Moments(folder, at, kill, folder, commits_only=True))
        result.kills += code == -signal.SIGKILL
        result.check(reference, folder, f"commit {at} of {reference.commits}")
        print(f"{result.name}: commit {at} of {reference.commits}, {len(result.failures)} failed", flush=True)
    return result
