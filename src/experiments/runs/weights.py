"""What `model.weights` names: weights of a file, of torchvision or timm, or of a finished run.

weights = initial_weights(config)     # None: random weights
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from experiments.config import Config, UserError
from experiments.config.published import FORMATS, IMAGENET, RUN, TIMM, published
from experiments.files.download import fetch_file
from experiments.models.weights import Weights, read

log = logging.getLogger(__name__)

FOLDER = Path("data/weights")  # of those that are downloaded


def initial_weights(config: Config) -> Weights | None:
    """The weights from which the training of `config` starts; None for random ones.

    Raises:
        UserError: they are missing or damaged, cannot be downloaded, or there is no such run.
    """
    which = config.model.weights
    if which is None:
        return None
    key = f"model.weights={which}"
    if which.startswith(RUN):
        return _of_run(which.removeprefix(RUN), key, config)
    return read(_downloaded(config, key) if which == IMAGENET else Path(which).expanduser(), key)


def _downloaded(config: Config, key: str) -> Path:
    """The file of the published weights, downloaded if it is not there."""
    name = config.model.parameters["name"]
    address = published(config.model.target, name).address
    file = address.rsplit("/", 1)[-1]
    if config.model.target == TIMM:
        file = f"{name}{Path(file).suffix}"  # on Hugging Face, the files of all networks have the same name
    places = [FOLDER / file, *((FOLDER / file).with_name(f"{name}{suffix}") for suffix in FORMATS)]
    return fetch_file(address, next((place for place in places if place.exists()), places[0]), key)


def with_run_id(config: Config) -> Config:
    """The same configuration with the id of the run that run:best or run:latest means today: it may be another one later.

    Raises:
        UserError: there is no such run.
    """
    if config.model.weights not in (f"{RUN}best", f"{RUN}latest"):
        return config
    from experiments.runs.finding import STORE, find_run  # imports MLflow

    with _explained(config.model.weights):
        run = find_run(config.model.weights.removeprefix(RUN), uri=config.tracking.uri or STORE)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, weights=f"{RUN}{run.info.run_id}"))


def _of_run(which: str, key: str, config: Config) -> Weights:
    from experiments.runs.recorded import STORE, read_run  # imports MLflow

    with _explained(f"{RUN}{which}"):
        run = read_run(which, uri=config.tracking.uri or STORE)
    for name in ("mean", "std"):
        before, now = (list(getattr(data, name)) for data in (run.config.data, config.data))
        if before != now:
            log.warning("%s: was trained with data.%s=%s, not %s", key, name, before, now)
    return Weights.of(run.logged.weights, key, run.logged.classes)


@contextlib.contextmanager
def _explained(weights: str) -> Iterator[None]:
    """Name the key of the weights in errors about their run."""
    try:
        yield
    except UserError as error:
        reason, several, _ = str(error).removeprefix(f"--run {weights.removeprefix(RUN)}: ").partition("\nchoose one")
        advice = f"\nname the run by its id: model.weights={RUN}ID" if several else ""
        raise UserError(f"model.weights={weights}: {reason}{advice}") from None
