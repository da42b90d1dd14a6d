"""A trained network as an MLflow model: exported without pickle, and checked before training that this will work."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mlflow.entities import LoggedModel

from experiments.config import UserError
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs import serving


def example(splits: Splits) -> np.ndarray:
    """Two training pictures, or one twice: the model is exported with them, and one alone would fix its batch size."""
    return np.resize(splits.train[:2].pixels, (2, *splits.image_shape))


def check_export(model: Classifier, target: str, image_shape: tuple[int, int, int]) -> None:
    """Make sure before training that the model can be logged: it must give the same answers once it is exported.

    Raises:
        UserError: where `torch.export` cannot take the network, or fixes its batch size.
    """
    advice = "a network must not look at values or at the batch size in Python; use tensor operations"
    dynamic = ({0: torch.export.Dim.AUTO},)
    training = model.training
    try:
        exported = torch.export.export(
            model.eval(), (torch.zeros((2, *image_shape), dtype=torch.uint8),), None, dynamic_shapes=dynamic
        )
        for count in (1, 3, 5):
            pictures = torch.randint(0, 256, (count, *image_shape), dtype=torch.uint8, generator=torch.Generator())
            torch.testing.assert_close(exported.module()(pictures), model(pictures))
    except Exception as error:  # torch.export has no error class of its own
        raise UserError(
            f"model._target_={target}: cannot be exported: {str(error).splitlines()[0]}; {advice}"
        ) from None
    finally:
        model.train(training)


def save_model(
    model: Classifier, path: Path, example: np.ndarray, classes: Sequence[str], logged: LoggedModel, precision: str
) -> None:
    """An MLflow model that loads without pickle and takes raw uint8 pictures in any number.

    `mlflow.pytorch.load_model` gives the network (logits); `mlflow.pyfunc.load_model` and `mlflow models serve` go
    through `serving.py` (a probability for every class name).
    """
    import mlflow.pytorch  # this and what follows take 1 s
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))]),
        Schema([ColSpec(DataType.double, name) for name in classes]),
    )
    packages = ("mlflow", "numpy", "pandas", "torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # torch.export says it of the plainest models
        mlflow.pytorch.save_model(
            model.cpu(),
            str(path),
            mlflow_model=Model(run_id=logged.source_run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            code_paths=[serving.__file__],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
            metadata={"classes": list(classes), "preprocessing": "raw uint8 RGB pictures, normalised inside the model"},
        )
    settings = json.dumps({"classes": list(classes), "precision": precision}, ensure_ascii=False)
    (path / "data" / "serving.json").write_text(settings, encoding="utf-8")
    described = Model.load(str(path))
    described.flavors["python_function"]["loader_module"] = Path(serving.__file__).stem
    described.save(str(path / "MLmodel"))
