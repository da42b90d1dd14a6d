"""Real ImageNet weights in the folder that EXPERIMENTS_REAL_DATA names: a photograph gets a sensible class."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.config.loading import compose_config
from experiments.models.build import build
from experiments.models.weights import load, read

FOLDER = Path(os.environ.get("EXPERIMENTS_REAL_DATA", "nowhere"))
CHOICES = {
    "squeezenet1_1": ["model=torchvision", "model.name=squeezenet1_1"],
    "tf_efficientnet_lite0": ["model=timm", "model.name=tf_efficientnet_lite0"],
}
TIGER_CAT, TABBY, EGYPTIAN_CAT = 282, 281, 285


@pytest.mark.parametrize("name", CHOICES)
def test_a_cat_is_a_cat(name):
    file = next(iter(FOLDER.glob(f"**/{name}.pth")), None)
    if file is None:
        pytest.skip("EXPERIMENTS_REAL_DATA names no folder with these weights")
    data = pytest.importorskip("skimage.data")
    config = compose_config(["data=digits", *CHOICES[name]])
    model = build(config, 1000).eval()
    assert load(read(file, "model.weights=FILE"), model, name, list(map(str, range(1000)))) == ""
    picture = Image.fromarray(data.cat()).crop((75, 0, 375, 300)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 224, 224, 3).permute(0, 3, 1, 2)
    with torch.inference_mode():
        top = model(pixels).topk(3).indices[0].tolist()
    assert {TIGER_CAT, TABBY, EGYPTIAN_CAT} & set(top)
