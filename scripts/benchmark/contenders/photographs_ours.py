"""Random resized crops of this project: the batches of an epoch, as a run with augment.crop_scale gets them."""

import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from experiments.config.loading import compose_config
from experiments.data import Images, load_splits
from experiments.data.batches import Batches
from experiments.data.crops import region
from experiments.data.decoding import CENTRE
from experiments.models.classifier import Normalize
from experiments.training.devices import choose_device
from experiments.training.learner import training_batches

LIMITS = {"map": 10**12, "fly": 0}
COMPARED = 64  # photographs whose pixels are compared with Pillow's


def main(root: str, size: int, batch: int, epochs: int, way: str) -> None:
    config = compose_config(
        [
            "data=image_folder", f"data.root={root}", "data.split=random", f"data.image_size={size}", "data.fit=crop",
            f"data.map_limit={LIMITS[way]}", "augment.crop_scale=[0.35,1]", f"training.batch_size={batch}",
        ]
    )  # fmt: skip
    choose_device(config)  # sets threads and the allocator as a run does
    normalize = Normalize(
        config.data.mean, config.data.std
    )  # a part of the network; torchvision's batches are floats, too
    torch.manual_seed(0)
    images = load_splits(config.data).train
    batches = training_batches(config, images, torch.device("cpu"))
    seconds = []
    for _ in range(1 + epochs):
        start, count = time.perf_counter(), 0
        for pixels, _, _ in batches:
            count += len(normalize(pixels))
        seconds.append((time.perf_counter() - start) / count)
    print(json.dumps({"speed": 1 / min(seconds[1:]), "differences": compare(Path(root), images, batches)}))


def compare(root: Path, images: Images, batches: Batches) -> dict[str, float]:
    """The mean differences from Pillow's pixels: of random crops, and of the images of an evaluation."""
    crops, size = batches.crops, images.shape[2]
    assert crops
    middle = v2.Compose([v2.Resize(round(size / CENTRE)), v2.CenterCrop(size)])
    cut, whole = [], []
    draws = crops.draw(COMPARED)
    for place in range(min(COMPARED, len(images))):
        index = int(images.indices[place])
        with Image.open(root / images.name(place)) as file:
            picture = file.convert("RGB")
        part = functools.partial(region, draws[place].tolist(), crops.scale, crops.ratio, size)
        copy = crops.copies.picture(index).shape[1::-1] if crops.copies else picture.size
        box = np.array(part(*copy)[:4]).reshape(2, 2) * (picture.width / copy[0], picture.height / copy[1])
        (left, top), (wide, high) = box.tolist()
        corners = (left, top, min(left + wide, picture.width), min(top + high, picture.height))
        expected = picture.resize((size, size), Image.Resampling.BILINEAR, corners)
        cut.append(difference(crops.cut(index, draws[place]), expected))
        whole.append(difference(images.image(place), middle(picture)))
    return {"random crops": float(np.mean(cut)), "evaluation": float(np.mean(whole))}


def difference(pixels: np.ndarray, picture: Image.Image) -> float:
    return float(np.abs(pixels.transpose(1, 2, 0).astype(int) - np.asarray(picture).astype(int)).mean())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
