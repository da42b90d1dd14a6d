"""Failures of a small file system: full, read-only, broken; and folders that are deleted. Needs root, for a loop mount.

Each happens at a random change of a file or a database. The command may go on, or end with one message. When there is room
again, the same command must end as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from campaigns.kills import Reference, Result, fresh
from campaigns.moments import Moments, break_disk, delete, fill
from campaigns.outcomes import differences, outcome
from campaigns.processes import OUTPUT, run
from campaigns.works import Work

SIZE = 64  # MiB of the file system
PLACES = {
    "outputs": ("outputs=disk/outputs",),
    "mlruns": ("tracking.artifacts=disk/mlruns",),
    "database": ("tracking.uri=sqlite:///disk/mlflow.db",),
    "all": ("outputs=disk/outputs", "tracking.artifacts=disk/mlruns", "tracking.uri=sqlite:///disk/mlflow.db"),
}
SAID = re.compile("No space left on device|disk is full|Read-only file system|may not be (?:read or )?written to|readonly database|"
                  "Input/output error|these are not there|was deleted while")  # fmt: skip


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `SIZE` MiB, mounted at `folder`."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(SIZE << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", "-e", "remount-ro", image], check=True
    )
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        image.unlink()


def make_room(disk: Path) -> None:
    """What an administrator does: delete what fills the disk, or check and mount it again."""
    (disk / "filler").unlink(missing_ok=True)


def mount_again(disk: Path) -> None:
    subprocess.run(["umount", disk], check=True)
    subprocess.run(["e2fsck", "-p", "-f", disk.with_suffix(".img")], capture_output=True)
    subprocess.run(["mount", "-o", "loop", disk.with_suffix(".img"), disk], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def make_writable(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def nothing(_: Path) -> None:
    """A folder that was deleted is made again by the command."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """What happens to the disk, and what mends it.

    Attributes:
        whole: it happens to the disk, else to the folder of `PLACES` on it.
        before: it happens before the command, instead of at one of its moments.
        lost: what may be missing afterwards, see `outcome`: a finished run needs no checkpoint.
    """

    act: Callable[[Path], None]
    mend: Callable[[Path], None]
    places: tuple[str, ...] = tuple(PLACES)
    whole: bool = True
    before: bool = False
    lost: tuple[str, ...] = ()


FAILURES = {
    "full": Failure(fill, make_room),
    "broken": Failure(break_disk, mount_again),
    "deleted": Failure(delete, nothing, ("outputs", "mlruns"), whole=False, lost=("checkpoints",)),
    "readonly": Failure(make_read_only, make_writable, before=True),
}


def disturbed_disk(work: Work, count: int, seed: int, place: Path, names: Sequence[str]) -> Result:
    """`count` failures of each kind in each place, at random moments, or one before the command."""
    reference, result = Reference.of(work, place), Result(f"{work.name}: {', '.join(names)}")
    draw = random.Random(f"{work.name} {seed}")
    for name in names:
        for where in FAILURES[name].places:
            for at in [0] if FAILURES[name].before else [draw.randint(1, reference.moments) for _ in range(count)]:
                _disturb(reference, result, FAILURES[name], where, at, f"{name}, {where}, moment {at}")
            print(f"{work.name}, {name}, {where}: {count}, {len(result.failures)} failed", flush=True)
    return result


def _disturb(reference: Reference, result: Result, failure: Failure, where: str, at: int, title: str) -> None:
    folder = fresh(reference.place / "disturbed", None)
    with small_disk(folder / "disk") as disk:
        shutil.copy(reference.store, (disk if where in ("database", "all") else folder) / "mlflow.db")
        work = dataclasses.replace(reference.work, arguments=(*reference.work.arguments, *PLACES[where]))
        place = disk if failure.whole else disk / where
        if failure.before:
            failure.act(place)
        code = run(work, folder, Moments(folder, at, failure.act, place))
        printed = (folder / OUTPUT).read_text(errors="replace")
        result.kills += 1
        problems = []
        if code not in (0, 1, 2) or (code and ("Traceback" in printed or not SAID.search(printed))):
            problems.append(f"it ended with {code}: {printed[-1500:]}")
        failure.mend(disk)
        if code := run(work, folder):
            problems.append(f"continued, it ended with {code}: {(folder / OUTPUT).read_text()[-1500:]}")
        else:
            _gather(folder, disk)
            found = outcome(folder)
            lost = {name: reference.outcome[name] for name in failure.lost if not found[name]}
            problems += differences(reference.outcome, found | lost)
        result.ended += 1
    if problems:
        result.failures.append(f"{title}: " + "; ".join(problems))
        print(f"FAILED {reference.work.name}, {result.failures[-1]}", flush=True)


def _gather(folder: Path, disk: Path) -> None:
    """Copy what lies on the disk to where it is looked for."""
    for name in ("outputs", "mlflow.db"):
        if (disk / name).exists():
            copy = shutil.copytree if (disk / name).is_dir() else shutil.copy
            copy(disk / name, folder / name)
