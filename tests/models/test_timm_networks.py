"""The networks of timm by name: their images, heads and weights."""

import sys

import pytest
import torch

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.models.build import build
from experiments.models.weights import load, read
from experiments.runs.export import check_export


def config_of(name, *overrides):
    return compose_config(["data=digits", "model=timm", f"model.name={name}", *overrides])


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^model=timm: timm is not installed: pip install -e '\.\[timm\]'$"):
        config_of("resnet18")


@pytest.mark.numbers
@pytest.mark.parametrize(
    ("name", "size", "head"),
    [
        ("mobilenetv3_small_050.lamb_in1k", 64, "classifier."),
        ("tf_efficientnet_lite0", 64, "classifier."),
        ("vit_tiny_patch16_224", 64, "head."),
        ("deit_tiny_distilled_patch16_224", 224, "head."),
    ],
)
def test_it_predicts_what_timms_own_network_predicts(name, size, head, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    options = {"img_size": size} if name.startswith("vit") else {}
    own = timm.create_model(name, pretrained=False, **options)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.02)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "own.pth")
    config = config_of(name, f"data.image_size={size}")
    model = build(config, 1000)
    assert model.head_prefix == head
    assert load(read(tmp_path / "own.pth", "model.weights=own.pth"), model, name, list(map(str, range(1000)))) == ""
    pixels = torch.randint(0, 256, (2, *config.data.image_shape), dtype=torch.uint8)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (config.data.mean, config.data.std))
    with torch.inference_mode():
        expected = own.double().eval()((pixels.double() / 255 - mean) / std)
        torch.testing.assert_close(model.double().eval()(pixels), expected, rtol=0, atol=1e-5)
    other = build(config, 3)
    line = load(read(tmp_path / "own.pth", "model.weights=own.pth"), other, name, ["a", "b", "c"])
    assert f"random: {head}" in line and "not used" not in line


def test_it_can_be_exported():
    pytest.importorskip("timm")
    config = config_of("mobilenetv3_small_050", "data.image_size=32")
    check_export(build(config, 3), config.model.choice, config.data.image_shape)


def test_a_size_that_it_does_not_take_is_named():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"data\.image_size=8: .*vit_tiny_patch16_224"):
        build(config_of("vit_tiny_patch16_224", "data.image_size=8"), 3)
