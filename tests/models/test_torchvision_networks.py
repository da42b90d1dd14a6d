"""The networks of torchvision by name: trained, loaded from torchvision's own files, and equal to torchvision's own."""

import shutil

import pytest
import torch

from conftest import ROOT
from experiments.config.loading import compose_config
from experiments.config.published import TORCHVISION, networks
from experiments.experiment import run
from experiments.models.build import build
from experiments.models.weights import load, read
from experiments.runs.export import check_export

NAMES = sorted(file.stem for file in (ROOT / "conf/model").glob("[!_]*.yaml") if "_torchvision" in file.read_text())
NAMES.remove("torchvision")
SIZES = {"inception_v3": 75}  # the least that a network takes; else 32
pytestmark = [pytest.mark.slow, pytest.mark.numbers]


@pytest.fixture(scope="module", params=NAMES)
def published(request, tmp_path_factory):
    """(name, torchvision's own network, its file); all weights are random, also the head of a vision transformer."""
    from torchvision import models

    name = request.param
    torch.manual_seed(1)
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    network = models.get_model(name, weights=None, **options)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and (tensor == tensor.flatten()[0]).all():
                tensor.add_(torch.rand_like(tensor), alpha=0.1)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        size = 299 if name == "inception_v3" else size_of(name)  # its auxiliary head, which only trains, needs that
        network.train()(torch.randn(4, 3, size, size))  # else the signal of a deep random network fades
    file = tmp_path_factory.mktemp("published") / "own.pth"
    torch.save(network.state_dict(), file)
    yield name, network, file
    file.unlink()  # up to 550 MB


def size_of(name):
    """Pixels per side; a vision transformer of torchvision takes only its own size."""
    return networks(TORCHVISION)[name].size if name == "vit_b_16" else SIZES.get(name, 32)


def config_of(name, size):
    return compose_config(["data=digits", f"model={name}", f"data.image_size={size}"])


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_an_epoch_at_its_size(name, here):
    """A few images are enough to see it."""
    from samples import paint

    for number, label in enumerate(("cat", "dog")):
        paint(here / "pictures", label, 3, 10 * number)
    folder = ("data=image_folder", "data.root=pictures", "data.validation_size=2", "data.test_size=2")
    few = ("training.epochs=1", "training.batch_size=2", "threads=1", "tracking=none")
    small = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")  # a checkpoint without moments
    config = compose_config([*folder, *few, *small, f"model={name}"])
    assert config.data.image_size == {"efficientnet_v2_s": 384, "inception_v3": 299}.get(name, 224)
    result = run(config)
    assert result.metrics["seconds"] > 0 and result.history[0]["train/loss"] > 0
    shutil.rmtree(here / "outputs")  # up to a gigabyte


def test_it_predicts_what_torchvisions_own_network_predicts(published):
    name, own, file = published
    config = config_of(name, size_of(name))
    model = build(config, 1000)
    assert load(read(file, "model.weights=own.pth"), model, name, [str(n) for n in range(1000)]) == ""
    pixels = torch.randint(0, 256, (2, *config.data.image_shape), dtype=torch.uint8)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (config.data.mean, config.data.std))
    if name == "inception_v3":
        own.transform_input = True  # as torchvision does with its weights
    with torch.inference_mode():  # in float64, in which an error is no rounding
        normalized = model.double().eval().normalize(pixels)
        torch.testing.assert_close(normalized, (pixels.double() / 255 - mean) / std, rtol=0, atol=1e-5)
        expected = own.double().eval()(normalized)
        torch.testing.assert_close(model(pixels), expected, rtol=0, atol=1e-5)
    assert expected.isfinite().all() and (expected[0] - expected[1]).abs().max() > 1e-3


def test_its_head_is_replaced_and_it_can_be_exported(published):
    name, _, file = published
    config = config_of(name, SIZES.get(name, 32))
    model = build(config, 3)
    line = load(read(file, "model.weights=own.pth"), model, name, ["a", "b", "c"])
    assert model.head_prefix in line and "random: " in line and "not used" not in line
    head = [name for name, _ in model.network.named_parameters() if name.startswith(model.head_prefix)]
    assert len(head) == 2
    if name != "vit_b_16":  # its position embeddings were resized
        own = torch.load(file, mmap=True)
        for key, tensor in model.network.state_dict().items():
            assert key in head or torch.equal(tensor, own[key])
    check_export(model, f"model={name}", config.data.image_shape)
