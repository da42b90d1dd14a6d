"""Small data sets for tests, and their splits."""

import hashlib
import subprocess
import sys

import numpy as np
from PIL import Image

from experiments.config.loading import compose_config
from experiments.data import load_splits


def splits_of(*overrides, seed=1):
    return load_splits(compose_config([f"data.seed={seed}", *overrides]).data)


def paint(folder, name, count, start, size=20):
    """`count` different pictures in `folder/name`."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


def load_elsewhere(*overrides, before="pass"):
    """Another process that prints the digest of the splits."""
    program = (
        f"{before}\nfrom experiments.config.loading import compose_config as compose\nfrom experiments.data import load_splits as load\n"
        f"print(load(compose({['data.seed=1', *overrides]}).data).digest)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="."
    )


def answer(process):
    """(digest, standard error) of `load_elsewhere`."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.split()[-1], err


def digest_of(*parts):
    """SHA-256 over those of three times (pixels, labels, classes), from plain arrays."""
    digests = [
        hashlib.sha256(repr((pixels.shape, classes)).encode() + labels.tobytes() + pixels.tobytes()).hexdigest()
        for pixels, labels, classes in parts
    ]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def photograph(number, width, height):
    """A picture with smooth parts and edges, as photographs have them."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).copy()
    for left, top in zip(rng.integers(0, width, 5), rng.integers(0, height, 5)):
        pixels[top : top + height // 4, left : left + width // 4] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def photographs(folder, counts, size=(100, 75)):
    """JPEG photographs in folders of classes, some of them upright; returns the overrides that read them."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shape = size if number % 3 else size[::-1]
            photograph(1000 * label + number, *shape).save(folder / name / f"{number}.jpg", quality=92)
    return ("data=image_folder", f"data.root={folder}", "data.fit=crop", "data.image_size=48")


def needed_by(choice, folder):
    """The overrides without which a choice of conf/ does not compose; files are made in `folder`."""
    (folder / "labels.csv").touch()
    return {
        "image_folder": [f"data.root={folder}"],
        "csv": [f"data.file={folder}/labels.csv"],
        "torchvision": ["model.name=resnet34"],
        "timm": ["model.name=resnet18"],
        "inception_v3": ["data=digits"],  # the images of CIFAR-10 are too small
    }.get(choice, [])
