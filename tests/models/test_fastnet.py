"""The fast network: what it computes from images before the first epoch, and what stays frozen."""

import numpy as np
import pytest
import torch

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.models.build import build as build_model

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
IMAGES[:, 1:] = IMAGES[:, 1:] // 4 + IMAGES[:, :1] // 2  # correlated channels


def build(*overrides):
    torch.manual_seed(0)
    config = compose_config(["data=digits", "model=fastnet", "model.widths=[8,16]", *overrides])
    return build_model(config, 10)


@pytest.mark.parametrize("overrides", [(), ("model.patch=3", "model.stride=2")])
def test_whitened_patches_are_decorrelated_with_unit_variance(overrides):
    model = build(*overrides)
    floats = model.normalize(torch.from_numpy(IMAGES))
    model.network.initialize(floats)
    values = model.network.whitening(floats).transpose(0, 1).flatten(1).detach()
    half = len(values) // 2
    np.testing.assert_allclose(values.mean(dim=1), 0, atol=1e-3)
    np.testing.assert_allclose(torch.cov(values)[:half, :half], torch.eye(half), atol=0.01)
    np.testing.assert_allclose(values[:half], -values[half:], atol=1e-5)


def test_whitening_and_the_scales_of_norms_are_frozen():
    model = build()
    norms = [name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert len(norms) == 4 and frozen == {"network.whitening.weight", *(f"{name}.weight" for name in norms)}


def test_a_convolution_initially_returns_its_inputs():
    block = build().network.blocks[2]
    images = torch.rand(1, 8, 15, 15)
    np.testing.assert_array_equal(block.first[0](images)[:, :8].detach(), images)


def test_residual_adds_the_halved_image():
    images = torch.rand(2, 24, 31, 31)
    plain, residual = (build(f"model.residual={on}").eval().network.blocks[1] for on in ("false", "true"))
    residual.load_state_dict(plain.state_dict())
    torch.testing.assert_close(residual(images), plain(images) + plain.first(images))


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ("[20,20]", r"training\.image_sizes=\[20, 20\]: must be fewer than training\.epochs=2"),
        ("[33]", r"training\.image_sizes=\[33\]: must be at most the image size of 32 pixels"),
        (
            "[7]",
            r"model\.widths=\[32, 128, 128\]: must be 1 to 2 widths, because every block halves the image of 7x7",
        ),
    ],
)
def test_small_images_have_to_fit(sides, message):
    with pytest.raises(UserError, match=message):
        compose_config(["data=digits", "model=fastnet", "training.epochs=2", f"training.image_sizes={sides}"])


@pytest.mark.parametrize("widths", ["[]", "[8,8,8,8,8]"])
def test_images_have_to_be_large_enough_for_the_blocks(widths):
    with pytest.raises(UserError, match="must be 1 to 4 widths"):
        compose_config(["data=digits", "model=fastnet", f"model.widths={widths}"])
