"""Real ImageNet weights in the folder that EXPERIMENTS_REAL_DATA names: photographs get sensible classes."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from experiments.config.loading import compose_config
from experiments.models.build import build
from experiments.models.weights import load, read

FOLDER = Path(os.environ.get("EXPERIMENTS_REAL_DATA", "nowhere"))
CHOICES = {
    "squeezenet1_1": ["model=torchvision", "model.name=squeezenet1_1"],
    "tf_efficientnet_lite0": ["model=timm", "model.name=tf_efficientnet_lite0"],
}
HEAD_CABBAGE = 936


@pytest.mark.parametrize("name", CHOICES)
def test_leafy_vegetables_are_called_cabbage(name):
    """More often than anything else, in the photographs."""
    file = next(iter(FOLDER.glob(f"**/{name}.pth")), None)
    pictures = sorted(FOLDER.glob("**/test/green leafy vegetables/*"))
    if file is None or not pictures:
        pytest.skip("EXPERIMENTS_REAL_DATA names no folder with these weights and photographs")
    config = compose_config(["data=digits", *CHOICES[name]])
    model = build(config, 1000).eval()
    assert load(read(file, "model.weights=FILE"), model, name, list(map(str, range(1000)))) == ""
    found = Counter(top_class(model, picture) for picture in pictures[:12])
    assert found.most_common(1)[0][0] == HEAD_CABBAGE


@torch.inference_mode()
def top_class(model, path):
    picture = ImageOps.fit(Image.open(path).convert("RGB"), (224, 224), Image.Resampling.BICUBIC)
    return int(model(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]).argmax())
