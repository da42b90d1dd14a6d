"""The data sets of runs in MLflow: logged with each run; `best` and `latest` mean one run among those of a single data set."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Run
from mlflow.exceptions import MlflowException

from experiments.config import Config, DataSettings, UserError
from experiments.config.data import DATA_SET_KEYS, FOLDER, TABLE, folder_title, table_title
from experiments.config.foreign import mask_passwords
from experiments.config.wording import counted
from experiments.data import Splits

CONTEXT, CONTEXTS = "mlflow.data.context", ("training", "validation", "testing")  # MLflow's names of the splits


class DataSet(NamedTuple):
    """A data set: two folders of pictures, or tables, are different ones, also if they have the same name."""

    title: str
    folder: str = ""

    @classmethod
    def of(cls, run: Run) -> DataSet:
        name, root, file = (run.data.params.get(f"data.{key}", "") for key in ("name", "root", "file"))
        target = run.data.params.get("data._target_", FOLDER if name == "image_folder" else "")
        if target == TABLE:
            return cls(table_title(name, file), _path(file))
        return cls(folder_title(name, root), _path(root)) if target == FOLDER else cls(name)

    def is_named(self, name: str) -> bool:
        """Whether a user means this data set: by its title, or by its folder or table in any spelling."""
        return name == self.title or bool(self.folder and _path(name) == self.folder)


def all_have_that_of(run: Run, search: Callable[[str], Sequence[Run]]) -> bool:
    """Whether no run has another data set than this one: two queries, however many runs there are.

    Args:
        search: returns some of the runs that fulfil a condition.
    """
    values = {key: run.data.params[key] for key in DATA_SET_KEYS if key in run.data.params}
    return not any("'" in value or search(f"params.`{key}` != '{value}'") for key, value in values.items())


def of_one_data_set(runs: Sequence[Run], which: str, data: str | None, experiments: Mapping[str, str]) -> list[Run]:
    """The runs of the only data set, or of the one that is named.

    Args:
        which: what `--run` asks for, for the message.
        data: the title or the folder of a data set; None if none is named.
        experiments: names of MLflow experiments -> ids.

    Raises:
        UserError: there are several data sets, or none of that name.
    """
    groups: dict[DataSet, list[Run]] = {}
    for run in runs:
        groups.setdefault(DataSet.of(run), []).append(run)
    named = [known for known in groups if data is None or known.is_named(data)]
    if len(named) == 1:
        return groups[named[0]]
    if not named:
        titles = ", ".join(sorted({known.title for known in groups}))
        raise UserError(f"--data {data}: no finished run is of this data set; there are {titles}")
    there = "\n  ".join(_described(known, groups[known], experiments) for known in sorted(named))
    if len({known.title for known in named}) < len(named):
        folders = " or ".join(f"--data {known.folder}" for known in sorted(named) if known.folder)
        advice = f"choose one by its folder: {folders}"
    else:
        advice = "choose one by --experiment NAME, by the id of a run, or (not in evaluate.py) by --data NAME"
    raise UserError(f"--run {which}: the finished runs are of {len(named)} data sets:\n  {there}\n{advice}")


def check_place(own: DataSettings, settings: DataSettings) -> None:
    """Refuse another folder or file than that of a run, if none of the run's images is there: it has no split of this run.

    Raises:
        UserError: it is another one.
    """
    changed = [f"{key}={value}" for key in DATA_SET_KEYS if (value := _value(settings, key)) != _value(own, key)]
    if changed:
        source = {FOLDER: "image_folder", TABLE: "csv"}.get(settings._target_, "NAME")
        advice = f"to evaluate other images: --data {source} {' '.join(changed)}"
        raise UserError(
            f"{', '.join(changed)}: none of the run's images is there, or they are decoded differently; {advice}"
        )


def _value(settings: DataSettings, key: str) -> object:
    return vars(settings).get(key.removeprefix("data."))


def _described(known: DataSet, runs: Sequence[Run], experiments: Mapping[str, str]) -> str:
    names = {identity: name for name, identity in experiments.items()}
    places = ", ".join(sorted({names[run.info.experiment_id] for run in runs}))
    return f"{known.title} ({counted(len(runs), 'run')}, in MLflow experiment {places})"


def _path(folder: str) -> str:
    return str(Path(folder).expanduser().resolve())


def log_data_sets(client: MlflowClient, run_id: str, config: Config, splits: Splits) -> None:
    """Log the three splits of a run.

    MLflow checks whether it has a data set, then adds it; if another run adds it in between, MLflow raises. Each such error
    means that it has one more of them now, so there is at most one per data set.
    """
    datasets = list(_datasets(config, splits))
    for _ in datasets:
        with contextlib.suppress(MlflowException):
            return client.log_inputs(run_id, datasets=datasets)
    return client.log_inputs(run_id, datasets=datasets)


def logged_digest(run: Run) -> str | None:
    """SHA-256 of the images of a run, as `Splits.digest` computes it; None if it was not logged."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    found = {tag.value: each.dataset for each in inputs for tag in each.tags if tag.key == CONTEXT}
    try:
        digests = [json.loads(found[context].profile or "null")["sha256"] for context in CONTEXTS]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    except (KeyError, TypeError, ValueError):  # of an earlier version, or damaged
        return None


def _datasets(config: Config, splits: Splits) -> Iterator[DatasetInput]:
    """The three splits, each with the SHA-256 of its images and labels (MLflow's digest has room for 32 digits of it)."""
    for context, images in zip(CONTEXTS, splits.parts().values(), strict=True):
        dataset = Dataset(
            name=config.data.title,
            digest=images.digest[:32],
            source_type="local",
            source=json.dumps({"name": config.data.name, "root": mask_passwords(config.data.origin)}),
            profile=json.dumps({"images": len(images), "sha256": images.digest, "classes": len(images.classes)}),
        )
        yield DatasetInput(dataset, [InputTag(CONTEXT, context)])
