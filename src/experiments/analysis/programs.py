"""The short program that uses an exported file without this package, as it is printed after the export."""

from __future__ import annotations

from pathlib import Path

CROP = """\
shorter, resized = min(picture.size), round(size / 0.875)
    picture = picture.resize([int(resized * side / shorter) for side in picture.size], Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in picture.size)
    picture = picture.crop((left, top, left + size, top + size))"""
FITS = {  # data.fit: how Pillow makes the square of `size` pixels per side that the network takes
    "squash": "picture = picture.resize((size, size), Image.Resampling.BICUBIC)",
    "crop": CROP,
    "pad": "picture = ImageOps.pad(picture, (size, size), Image.Resampling.BILINEAR)",
}
ONNX = '''\
"""Print the class of pictures: python classify.py PICTURE...  (after: pip install numpy onnxruntime pillow)"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({path!r})
about = session.get_modelmeta().custom_metadata_map
classes, size = json.loads(about["classes"]), int(about["image_size"])
for file in sys.argv[1:]:
    picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    {fit}
    images = np.asarray(picture).transpose(2, 0, 1)[None]  # uint8 (1, 3, size, size), red first; not normalised
    logits = session.run(None, {{"images": images}})[0][0]
    shares = np.exp(logits - logits.max())
    print(file, classes[logits.argmax()], f"{{shares.max() / shares.sum():.4f}}")
'''
PT2 = '''\
"""Print the class of pictures: python classify.py PICTURE...  (after: pip install numpy pillow torch)"""

import json
import sys

import numpy as np
import torch
from PIL import Image, ImageOps

files = {{"about.json": ""}}
network = torch.export.load({path!r}, extra_files=files).module()
about = json.loads(files["about.json"])
classes, size = json.loads(about["classes"]), int(about["image_size"])
for file in sys.argv[1:]:
    picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    {fit}
    images = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None]  # uint8 (1, 3, size, size), red first; not normalised
    shares = network(images)[0].softmax(dim=0)
    print(file, classes[shares.argmax()], f"{{shares.max():.4f}}")
'''


def program(path: Path, fit: str) -> str:
    """The program for a file: it prints one line per picture, with the most probable class and its probability.

    Args:
        fit: how a picture is made square, as `data.fit`.
    """
    text = PT2 if path.suffix == ".pt2" else ONNX
    return text.format(path=str(path), fit=FITS[fit])
