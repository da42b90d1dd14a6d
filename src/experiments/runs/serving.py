"""How MLflow serves a model: raw images in, a probability for every class name out.

This file is copied into every logged model, so it imports nothing from the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch


class Served:
    """What `mlflow.pyfunc.load_model` returns: `predict` takes uint8 images (N, 3, H, W)."""

    def __init__(self, model: Any, classes: list[str], precision: str, batch_size: int) -> None:
        self.model = model
        self.classes = classes
        self.precision = precision
        self.batch_size = batch_size

    @torch.inference_mode()
    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per image, one column per class."""
        # As in `training.evaluation`: with batches of one size, an image gets the same logits alone and with others.
        missing = -len(images) % self.batch_size
        full = torch.from_numpy(np.concatenate([images, np.zeros((missing, *images.shape[1:]), dtype=np.uint8)]))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            logits = torch.cat([self.model(batch) for batch in full.split(self.batch_size)])[: len(images)]
        return pd.DataFrame(logits.float().softmax(dim=1).numpy().astype(np.float64), columns=self.classes)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Served:
    """Called by MLflow with the model's `data` folder."""
    import mlflow.pytorch

    settings = json.loads((Path(path) / "serving.json").read_text(encoding="utf-8"))
    return Served(mlflow.pytorch.load_model(str(Path(path).parent)), **settings)
