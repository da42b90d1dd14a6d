"""The export of a trained network as an MLflow model, without pickle; a check before training that it will work; reading it."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import torch
import yaml
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from experiments.config import Config, UserError
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs import serving, store
from experiments.runs.fingerprint import network_sources
from experiments.runs.written import logged_models
from experiments.training.evaluation import batch_size


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
                "sources": network_sources(config.model.target),
            },
        )
    settings = {"classes": list(classes), "precision": config.precision, "batch_size": batch_size(example.shape)}
    (path / "data" / "serving.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    described = Model.load(str(path))
    described.flavors["python_function"]["loader_module"] = Path(serving.__file__).stem
    described.save(str(path / "MLmodel"))


def read_model(uri: str, experiment_id: str, run_id: str) -> tuple[dict[str, Any], torch.export.ExportedProgram]:
    """(metadata, exported network) of the model that `save_model` wrote for a run.

    Raises:
        UserError: the run has no model, or its files are missing.
    """
    found = logged_models(store.connect(uri), experiment_id, run_id)
    if not found:
        raise UserError(f"run {run_id} has no model")
    place = found[0].artifact_location
    with tempfile.TemporaryDirectory() as folder:
        try:
            described, exported = (
                mlflow.artifacts.download_artifacts(artifact_uri=f"{place}/{name}", dst_path=folder, tracking_uri=uri)
                for name in ("MLmodel", "data/model.pt2")
            )
        except (OSError, MlflowException) as error:
            raise UserError(f"run {run_id}: its files are missing ({error})") from None
        metadata: dict[str, Any] = yaml.safe_load(Path(described).read_text(encoding="utf-8"))["metadata"]
        return metadata, torch.export.load(exported)
