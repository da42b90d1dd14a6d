"""A finished run rebuilt from what MLflow has of it, and what is missing or has changed since.

rebuilt = rebuild(read_run("best"), overrides=[], threads=None, trust=False)
print(rebuilt)                    # one line per finding, and what can be expected
rebuilt.config, rebuilt.weights   # to train it again
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from experiments.analysis import findings
from experiments.analysis.findings import Effect, Finding
from experiments.config import Config, UserError
from experiments.config.composition import with_changes
from experiments.config.data import CifarSettings, PictureSettings
from experiments.config.defaults import default
from experiments.config.foreign import printable
from experiments.config.keys import key_of
from experiments.config.processes import launched
from experiments.data import Splits
from experiments.models.weights import Weights
from experiments.runs import provenance, store
from experiments.runs.checkpoint import ENOUGH, ShouldPrune
from experiments.runs.fingerprint import fingerprint
from experiments.runs.origin import FILE, Origin, Part
from experiments.runs.recorded import Recorded, artifact, has_artifact
from experiments.training.devices import device_type

Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "mps")
MOST_THREADS = 1024  # as for the key
FOLDER = Path(default("outputs")) / "reproductions"


@dataclass(frozen=True)
class Rebuilt:
    """A run as it can be trained again.

    Attributes:
        config: of the new training, which has a folder of its own and is not logged as a run.
        weights: from which it starts; None for random ones.
        history: the metrics of the epochs of the original.
        then: how the original was trained, as far as it is recorded.
        here: how the new one is trained; None where it cannot be.
    """

    recorded: Recorded
    config: Config
    weights: Weights | None
    history: list[dict[str, float]]
    then: Part
    here: Part | None
    findings: tuple[Finding, ...]

    @property
    def run_id(self) -> str:
        return str(self.recorded.run.info.run_id)

    @property
    def folder(self) -> Path:
        """Of the reproduction, with its lock, its checkpoint, and the files that it takes from the run."""
        return folder_of(self.recorded)

    def of_effect(self, effect: Effect) -> list[str]:
        """What has this effect on the numbers."""
        return list(dict.fromkeys(each.what for each in self.findings if each.effect == effect))

    @property
    def expectation(self) -> str:
        """What the findings mean for the verdict."""
        rounding, numbers = (", ".join(self.of_effect(effect)) for effect in (Effect.ROUNDING, Effect.NUMBERS))
        if wrong := ", ".join(self.of_effect(Effect.IMPOSSIBLE)):
            return f"cannot be rebuilt: {wrong}"
        if numbers:
            return f"expected: other numbers are possible ({', '.join(filter(None, [numbers, rounding]))})"
        if not rounding:
            return "expected: identical"
        drawn = any(package in rounding for package in ("torch", "timm"))  # also torchvision
        other = ", or different: another version may draw other initial weights from the same seed"
        return f"expected: equal within rounding ({rounding}){other if drawn else ''}"

    def __str__(self) -> str:
        width = max(len(each.what) for each in self.findings)
        lines = [f"{printable(each.what):<{width}}  {printable(each.detail)}" for each in self.findings]
        return "\n".join([*lines, "", printable(self.expectation)])

    def check(self) -> None:
        """Check that it can be trained again.

        Raises:
            UserError: something is missing, or is not what the run was trained with.
        """
        if wrong := [each for each in self.findings if each.effect == Effect.IMPOSSIBLE]:
            reasons = "; ".join(printable(f"{each.what}: {each.detail}") for each in wrong)
            raise UserError(f"run {self.run_id[:8]} cannot be rebuilt: {reasons}")

    @property
    def ends(self) -> ShouldPrune:
        """Ends the new training where training.budget has ended the original one."""
        last = len(self.history) if self.recorded.config.training.budget else 0
        return lambda epoch, _: ENOUGH if epoch == last else False


def folder_of(recorded: Recorded) -> Path:
    """The folder of the reproduction of a run; an id that somebody else wrote may have any characters."""
    return FOLDER / "".join(letter for letter in recorded.run.info.run_id if letter.isalnum())


def rebuild(recorded: Recorded, overrides: Sequence[str], threads: int | None, trust: bool) -> Rebuilt:
    """Rebuild a run, and compare what it was made from with what is here.

    Args:
        overrides: where its pictures and its weights are now: data.root=..., model.weights=...
        threads: CPU threads; None for those of the run.
        trust: import classes of its configuration whose source is not the recorded one in this project.

    Raises:
        UserError: an override has another key.
    """
    others = [text for text in overrides if key_of(text) != "model.weights" and not key_of(text).startswith("data.")]
    if others:
        raise UserError(f"{', '.join(others)}: only keys of the data and model.weights can be set here: data.root=...")
    run = recorded.run
    uri, run_id = recorded.uri, run.info.run_id
    origin = Origin.read(artifact(uri, run_id, FILE)) if has_artifact(uri, run_id, FILE) else None
    part = origin.parts[0] if origin else _part_of_tags(run.data.tags)
    history = store.metric_history(store.connect(uri), run_id)
    config = with_changes(recorded.config, overrides) if overrides else recorded.config
    config, missing = _on_this_machine(_in_our_folders(config, uri), part, threads)
    found = [*findings.of_configuration(recorded, overrides, len(history)), *findings.of_code(recorded, origin)]
    found += [*findings.of_classes(recorded, folder_of(recorded), trust), *missing]
    splits, weights, here = None, None, None
    if all(
        each.effect < Effect.IMPOSSIBLE for each in found
    ):  # else a class must not be imported, or there is no device
        splits, of_data = findings.of_data(recorded, config)
        weights, of_weights = findings.of_weights(config, origin)
        here = _part_here(config)
        later, forked = origin.parts[1:] if origin else (), store.TAG_FORKED_FROM in run.data.tags
        found += [of_data, of_weights, *findings.of_machine(part, here, later, forked), *_nondeterministic(config)]
    if splits and all(each.effect < Effect.NUMBERS for each in found):
        found += _of_fingerprint(recorded, config, splits, weights, origin is not None)
    return Rebuilt(recorded, _to_train(recorded, config), weights, history, part, here, tuple(found))


def _part_of_tags(tags: Mapping[str, str]) -> Part:
    """How the first epochs were trained, as far as the tags of a run tell it; 0: not recorded."""
    counts = (tags.get(name, "") for name in (store.TAG_THREADS, store.TAG_PROCESSES))
    threads, processes = (int(count) if count.isdecimal() else 0 for count in counts)
    return Part(1, threads, processes, provenance.read_machine(tags.get("machine", "")), {})


def _in_our_folders(config: Config, uri: str) -> Config:
    """The configuration with caches in our own folder, whoever wrote it, and with the store of the run."""
    data = config.data
    if isinstance(data, CifarSettings | PictureSettings):
        data = dataclasses.replace(data, cache=str(Path(default("outputs")) / "cache"))
    return dataclasses.replace(config, data=data, tracking=dataclasses.replace(config.tracking, uri=uri))


def _on_this_machine(config: Config, part: Part, threads: int | None) -> tuple[Config, list[Finding]]:
    """The configuration with the device and the threads of the run, if they are here."""
    config = dataclasses.replace(config, threads=threads or min(part.threads, MOST_THREADS) or config.threads)
    recorded = next((kind for kind in DEVICES if kind == part.machine.get("device")), config.device)
    choices: tuple[Device, ...] = (recorded, "auto")
    for device in choices:
        config = dataclasses.replace(config, device=device)
        try:
            device_type(config)
            return config, []
        except UserError as error:
            reason = str(error)
    return config, [Finding("device", reason, Effect.IMPOSSIBLE)]


def _part_here(config: Config) -> Part:
    """How this process would train it."""
    here = Part.here(1, torch.device(device_type(config)), launched().count)
    return dataclasses.replace(here, threads=config.threads or here.threads)


def _nondeterministic(config: Config) -> list[Finding]:
    if device_type(config) == "cpu" or config.deterministic:
        return []
    return [Finding("device", "deterministic=false: a GPU rounds differently in every run", Effect.ROUNDING)]


def _of_fingerprint(
    recorded: Recorded, config: Config, splits: Splits, weights: Weights | None, known: bool
) -> list[Finding]:
    """Whether configuration and code, of which nothing else has changed, are those of the run; `known`: its files are recorded."""
    tags = recorded.run.data.tags
    device = provenance.read_machine(tags.get("machine", "")).get("device", device_type(config))
    if fingerprint(config, device, splits.digest, weights.digest() if weights else None) == tags[store.TAG_FINGERPRINT]:
        return [] if known else [Finding("code", "the same, by the fingerprint of the run")]
    if known:
        return [
            Finding("settings", "config.yaml has other values than the run had when it was trained", Effect.NUMBERS)
        ]
    return [Finding("code", "changed, by the fingerprint of the run", Effect.NUMBERS)]


def _to_train(recorded: Recorded, config: Config) -> Config:
    """The configuration of the new training: in a folder of its own, without a limit of time, tested if the run was."""
    return dataclasses.replace(
        config,
        resume=True,
        outputs=str(folder_of(recorded) / "training"),
        evaluate_test="test/loss" in recorded.run.data.metrics,
        training=dataclasses.replace(config.training, budget=None),
        tracking=dataclasses.replace(config.tracking, uri=None, run_name=recorded.run.info.run_name),
    )
