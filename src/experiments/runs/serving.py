"""How MLflow serves a model: raw pictures in, a probability for every class name out.

This file travels inside every logged model, so it imports nothing of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch


class Served:
    """What `mlflow.pyfunc.load_model` gives: `predict` takes uint8 pictures (N, 3, H, W)."""

    def __init__(self, model: Any, classes: list[str], precision: str) -> None:
        self.model = model
        self.classes = classes
        self.precision = precision

    @torch.inference_mode()
    def predict(self, pictures: np.ndarray, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row a picture, a column a class."""
        # As in `evaluation`: batches of one size give a picture the same answer alone and among others.
        size = max(1, min(250, 250 * 32 * 32 // (pictures.shape[-1] * pictures.shape[-2])))
        missing = -len(pictures) % size
        full = torch.from_numpy(np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), dtype=np.uint8)]))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            logits = torch.cat([self.model(batch) for batch in full.split(size)])[: len(pictures)]
        return pd.DataFrame(logits.float().softmax(dim=1).numpy().astype(np.float64), columns=self.classes)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Served:
    """Called by MLflow with the model's `data` folder."""
    import mlflow.pytorch

    settings = json.loads((Path(path) / "serving.json").read_text(encoding="utf-8"))
    return Served(mlflow.pytorch.load_model(str(Path(path).parent)), **settings)
