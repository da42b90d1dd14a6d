"""The export of a trained network as an MLflow model, without pickle; a check before training that it will work; reading it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import safetensors.torch
import torch
import yaml
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from experiments.config import Config, UserError
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.models.cutting import noise
from experiments.runs import serving, store
from experiments.runs.fingerprint import own_sources
from experiments.runs.logged_model import ANSWER, WEIGHTS, Logged, damaged
from experiments.runs.server import ask
from experiments.runs.written import logged_models
from experiments.training.evaluation import batch_size

MOST_VALUES = 100_000  # of a YAML file, in which aliases may repeat a value


def example(splits: Splits) -> np.ndarray:
    """Two training images (one twice if there is only one), uint8 (2, 3, H, W): one alone would fix the batch size at 1."""
    return np.resize(splits.train[:2].pixels, (2, *splits.image_shape))


def check_export(model: Classifier, choice: str, image_shape: tuple[int, int, int]) -> None:
    """Check before training that the model can be logged: exported, it must return the same logits.

    Args:
        choice: the key that chooses the network, and its value.

    Raises:
        UserError: `torch.export` cannot export the network, or fixes its batch size.
    """
    advice = "a network must not use values or the batch size in Python code; use tensor operations"
    dynamic = ({0: torch.export.Dim.AUTO},)
    training = model.training
    try:
        exported = torch.export.export(
            model.eval(), (torch.zeros((2, *image_shape), dtype=torch.uint8),), None, dynamic_shapes=dynamic
        )
        for count in (1, 3, 5):
            images = torch.randint(0, 256, (count, *image_shape), dtype=torch.uint8, generator=torch.Generator())
            torch.testing.assert_close(exported.module()(images), model(images))
    except Exception as error:  # torch.export raises many classes of errors
        raise UserError(f"{choice}: cannot be exported: {str(error).splitlines()[0]}; {advice}") from None
    finally:
        model.train(training)


def save_model(
    model: Classifier, path: Path, example: np.ndarray, classes: Sequence[str], logged: LoggedModel, config: Config
) -> None:
    """Write an MLflow model that loads without pickle and takes any number of raw uint8 images.

    `mlflow.pytorch.load_model` returns the network (logits); `mlflow.pyfunc.load_model` and `mlflow models serve` use
    `serving.py` (a probability for every class name).
    """
    import mlflow.pytorch  # these imports take 1 s
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
        Schema([ColSpec(DataType.double, name) for name in classes]),
    )
    packages = ("mlflow", "numpy", "pandas", "torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # torch.export also warns about correct models
        mlflow.pytorch.save_model(
            model.cpu(),
            str(path),
            mlflow_model=Model(run_id=logged.source_run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            code_paths=[serving.__file__],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
            metadata={
                "classes": list(classes),
                "preprocessing": "raw uint8 RGB images, normalised inside the model",
                "temperature": model.temperature,
                "sources": own_sources(config.model.target),
                "data_sources": own_sources(config.data._target_),
            },
        )
    _save_weights(model, path / "data" / Path(WEIGHTS).name, example.shape[1:])
    settings = {"classes": list(classes), "precision": config.precision, "batch_size": batch_size(example.shape)}
    (path / "data" / "serving.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    described = Model.load(str(path))
    described.flavors["python_function"]["loader_module"] = Path(serving.__file__).stem
    described.save(str(path / "MLmodel"))


@torch.inference_mode()
def _save_weights(model: Classifier, path: Path, image_shape: tuple[int, int, int]) -> None:
    """Write weights as plain tensors, from which the network is loaded, and what it computes with them."""
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    tensors |= {ANSWER: model(noise(image_shape, torch.device("cpu")))}
    safetensors.torch.save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def read_model(uri: str, experiment_id: str, run_id: str) -> Logged:
    """The model that `save_model` wrote for a run.

    Raises:
        UserError: the run has no model, or its files are missing or damaged.
    """
    found = logged_models(store.connect(uri), experiment_id, run_id)
    if not found:
        raise UserError(f"run {run_id} has no model")
    place = found[0].artifact_location
    with missing_files(run_id):
        listed = ask(uri, mlflow.artifacts.list_artifacts, artifact_uri=f"{place}/data", tracking_uri=uri)
    names = {"MLmodel", *(f"data/{Path(file.path).name}" for file in listed)}

    def fetch(name: str) -> bytes | None:
        if name not in names:
            return None
        with missing_files(run_id), tempfile.TemporaryDirectory() as folder:
            address = f"{place}/{name}"
            return Path(
                ask(uri, mlflow.artifacts.download_artifacts, artifact_uri=address, dst_path=folder, tracking_uri=uri)
            ).read_bytes()

    described = read_yaml(run_id, "MLmodel", fetch("MLmodel") or b"", "metadata")
    return Logged.read(run_id, described["metadata"], fetch)


@contextlib.contextmanager
def missing_files(run_id: str) -> Iterator[None]:
    """Report files of a run that cannot be read."""
    try:
        yield
    except (OSError, MlflowException) as error:
        raise UserError(f"run {run_id}: its files are missing ({error})") from None


def read_yaml(run_id: str, name: str, content: bytes, *sections: str) -> dict[str, Any]:
    """The values in a YAML file of a run, or in its first section; it must have these sections.

    Raises:
        UserError: it is empty, cut off, or damaged.
    """
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise damaged(run_id, name, " ".join(str(error).split())) from None
    if not isinstance(values, dict) or not values:
        raise damaged(run_id, name, "it is empty" if not values else "it has no keys")
    if _size(values, {}) > MOST_VALUES:
        raise damaged(run_id, name, f"it has more than {MOST_VALUES:,} values")
    if missing := [section for section in sections if not isinstance(values.get(section), dict)]:
        raise damaged(run_id, name, f"it lacks {', '.join(missing)}")
    return values


def _size(value: Any, known: dict[int, int]) -> int:
    """The number of values; what an alias repeats is counted each time, and what contains itself is too many."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known) for item in items)
    return known[id(value)]
