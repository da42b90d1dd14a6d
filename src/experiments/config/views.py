"""Test-time augmentation: the views of an image whose logits are added.

As in Jordan, 2024 (https://arxiv.org/abs/2404.00498). This file is part of every run's fingerprint.
"""

# For each view: weight; pixels by which the image is moved right and down; whether it is mirrored after that.
VIEWS: dict[str, tuple[tuple[float, int, bool], ...]] = {
    "none": ((1.0, 0, False),),
    "flip": ((0.5, 0, False), (0.5, 0, True)),
    "flip_shift": (
        (0.25, 0, False),
        (0.25, 0, True),
        *((0.125, shift, mirrored) for shift in (-1, 1) for mirrored in (False, True)),
    ),
}
