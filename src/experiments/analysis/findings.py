"""What a finished run was made from, compared with what is here: one finding per line of the list."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config import Config, UserError
from experiments.config.keys import flatten
from experiments.config.wording import counted, named
from experiments.data import Splits, load_splits
from experiments.data import membership as members
from experiments.models.weights import Weights
from experiments.runs import provenance, store
from experiments.runs.data_sets import logged_digest
from experiments.runs.fingerprint import PACKAGE, own_sources, package_sources
from experiments.runs.origin import SOURCE, Origin, Part
from experiments.runs.recorded import Recorded, has_artifact, read_membership
from experiments.runs.weights import initial_weights

NOT_RECORDED = "not recorded"
NOT_COMPUTING = ("experiments", "mlflow", "hydra-core")  # packages; ours is compared by its code


class Effect(enum.IntEnum):
    """What a finding means for the numbers of the new training."""

    NONE = 0
    ROUNDING = 1
    NUMBERS = 2
    IMPOSSIBLE = 3


@dataclass(frozen=True)
class Finding:
    """A line of the list: what was compared, and how it was and is."""

    what: str
    detail: str
    effect: Effect = Effect.NONE


def of_configuration(recorded: Recorded, overrides: Sequence[str], epochs: int) -> Iterator[Finding]:
    """How the run was configured, and how its epochs came about."""
    config, tags = recorded.config, recorded.run.data.tags
    typed = " ".join(store.read_overrides(tags)) or "no overrides"
    yield Finding("settings", f"config.yaml; {typed}{'; here with ' + ' '.join(overrides) if overrides else ''}")
    saved = {key for key, _ in flatten(recorded.saved)}
    if new := [key for key, _ in flatten(config.to_dict()) if key not in saved]:
        yield Finding("settings", f"it lacks {named(new)}: their defaults are used")
    if config.training.budget and epochs:
        yield Finding(
            "budget", f"{config.training.budget} then; here {counted(epochs, 'epoch')}, however long they take"
        )
    if origin := tags.get(store.TAG_FORKED_FROM):
        run, _, last = origin.partition(":")
        yield Finding("epochs", f"epochs 1 to {last} are those of run {run[:8]}; here they are trained, too")
    tested = "it was tested, so the new training is tested, too: one more use of the test set, counted in the child run"
    yield Finding("test set", tested if "test/loss" in recorded.run.data.metrics else "not used, then and now")


def of_code(recorded: Recorded, origin: Origin | None) -> Iterator[Finding]:
    """The files of this package that decide the numbers, and the commit."""
    tag = recorded.run.data.tags.get
    then, now = tag("mlflow.source.git.commit", NOT_RECORDED), provenance.commit()
    there = now.get("mlflow.source.git.commit", "none")
    commit = f"commit {then if then == NOT_RECORDED else then[:10]}{_dirty(tag('git_dirty'))}"
    if then != there or _dirty(tag("git_dirty")) != _dirty(now.get("git_dirty")):
        commit += f", here {there[:10]}{_dirty(now.get('git_dirty'))}"
    if origin is None:
        yield Finding("code", f"its files are {NOT_RECORDED} (an earlier version made the run); {commit}")
        return
    today = package_sources(PACKAGE)
    changed = [name for name in sorted({*today, *origin.code}) if today.get(name) != origin.code.get(name)]
    if changed:
        yield Finding("code", f"changed: {named(changed)}; {commit}", Effect.NUMBERS)
    else:
        yield Finding("code", f"the same in all {len(today)} files that decide the numbers; {commit}")


def _dirty(tag: str | None) -> str:
    return " with uncommitted changes" if tag == "true" else ""


def of_classes(recorded: Recorded, folder: Path, trust: bool) -> Iterator[Finding]:
    """The network and the data source of one's own. With `trust`, a changed source is replaced by the copy in the run.

    Args:
        folder: for this copy.
    """
    for group, target in (("model", recorded.config.model.target), ("data", recorded.config.data._target_)):
        then, today = recorded.logged.sources[group], own_sources(target)
        what = f"source of {target}"
        if recorded.logged.may_import(group, target):
            if today:
                yield Finding(what, f"the same ({named(list(today))})")
            continue
        if then is None:
            reason = NOT_RECORDED
        else:
            changed = [name for name in sorted({*then, *today}) if then.get(name) != today.get(name)]
            gone = all(name not in today for name in changed)
            reason = f"{'missing' if gone else 'changed'}: {named(changed)}" if changed else "of an installed package"
        kept = reason != "of an installed package" and has_artifact(recorded.uri, recorded.run.info.run_id, SOURCE)
        if not trust:
            uses = "imports the copy that the run has kept" if kept else "imports it as it is here"
            yield Finding(what, f"{reason}; --trust {uses}", Effect.IMPOSSIBLE)
        elif kept:
            _use_copy(recorded, folder)
            same = own_sources(target) == then
            yield Finding(what, f"{reason}; its copy in the run is used", Effect.NONE if same else Effect.NUMBERS)
        else:
            effect = Effect.NONE if reason == "of an installed package" else Effect.NUMBERS
            yield Finding(what, f"{reason}; imported as it is here", effect)


def _use_copy(recorded: Recorded, folder: Path) -> None:
    """Let Python find the files that a run has kept of its own classes before those of this project."""
    place = str((folder / SOURCE).resolve())
    if place not in sys.path:
        folder.mkdir(parents=True, exist_ok=True)
        store.connect(recorded.uri).download_artifacts(recorded.run.info.run_id, SOURCE, str(folder))
        sys.path.insert(0, place)


def of_data(recorded: Recorded, config: Config) -> tuple[Splits | None, Finding]:
    """The images of the run, found where its configuration or an override says."""
    logged = logged_digest(recorded.run)
    try:
        splits = load_splits(config.data)
    except UserError as error:
        return None, Finding("data", f"missing: {error}", Effect.IMPOSSIBLE)
    if logged is None:
        return splits, Finding("data", f"its digest is {NOT_RECORDED}; here {splits.digest[:16]}")
    if splits.digest == logged:
        return splits, Finding("data", f"the same (SHA-256 {logged[:16]})")
    changes = ""
    if membership := read_membership(recorded.uri, recorded.run.info.run_id):
        changes = members.find_again(config.data, membership, recorded.logged.classes)[1]
    changes = changes or "the same pictures in other splits, in another order, or decoded differently"
    digests = f"SHA-256 {logged[:16]}, here {splits.digest[:16]}"
    return splits, Finding("data", f"changed: {changes} ({digests})", Effect.IMPOSSIBLE)


def of_weights(config: Config, origin: Origin | None) -> tuple[Weights | None, Finding]:
    """The weights from which the training starts."""
    which = config.model.weights
    try:
        weights = initial_weights(config)
    except UserError as error:
        return None, Finding("initial weights", f"missing: {error}", Effect.IMPOSSIBLE)
    if weights is None:
        return None, Finding("initial weights", f"random, seed {config.seed}")
    digest = weights.digest()
    if origin is None:
        return weights, Finding("initial weights", f"{which}; their digest is {NOT_RECORDED}")
    if digest == origin.weights:
        return weights, Finding("initial weights", f"{which}, the same (SHA-256 {digest[:16]})")
    changed = f"{which} has changed: SHA-256 {str(origin.weights)[:16]}, here {digest[:16]}"
    return weights, Finding("initial weights", changed, Effect.IMPOSSIBLE)


def of_machine(then: Part, now: Part, later: Sequence[Part], forked: bool) -> Iterator[Finding]:
    """Hardware, libraries, threads and processes: on them depend the last bits."""
    yield from _compared("", then.machine, now.machine)
    if then.packages:
        yield from _compared("package ", *(_without_torch(each.packages) for each in (then, now)))
    else:
        yield Finding("packages", NOT_RECORDED)
    advice = f": torchrun --nproc-per-node={then.processes} scripts/reproduce.py uses as many"
    for what, one, other in (("threads", then.threads, now.threads), ("processes", then.processes, now.processes)):
        if not one:
            yield Finding(what, f"{NOT_RECORDED}; here {other}", Effect.ROUNDING)
        elif one != other:
            yield Finding(what, f"{one}, here {other}{advice if what == 'processes' else ''}", Effect.ROUNDING)
        else:
            yield Finding(what, str(one))
    if then.first_epoch > 1 and not forked:
        yield Finding(
            "epochs", f"how epochs 1 to {then.first_epoch - 1} were trained is {NOT_RECORDED}", Effect.ROUNDING
        )
    for before, part in zip((then, *later), later):
        changes = [f"{key} {value}" for key, value in _flat(part).items() if _flat(before).get(key) != value]
        yield Finding("epochs", f"from epoch {part.first_epoch} on with {', '.join(changes)}", Effect.ROUNDING)


def _without_torch(packages: Mapping[str, str]) -> dict[str, str]:
    """It is compared with the machine, which names the build, too."""
    return {name: version for name, version in packages.items() if name != "torch"}


def _flat(part: Part) -> dict[str, object]:
    return {**part.machine, **part.packages, "threads": part.threads, "processes": part.processes}


def _compared(kind: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Finding]:
    """What differs, each in a line of its own, and what is the same, in one line."""
    for key in dict.fromkeys((*then, *now)):
        if then.get(key) != now.get(key):
            effect = Effect.NONE if key in NOT_COMPUTING else Effect.ROUNDING
            yield Finding(f"{kind}{key}", f"{then.get(key, NOT_RECORDED)}, here {now.get(key, 'none')}", effect)
    if same := [f"{key} {value}" for key, value in then.items() if now.get(key) == value]:
        yield Finding("packages" if kind else "machine", ", ".join(same))
