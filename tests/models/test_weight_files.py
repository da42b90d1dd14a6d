"""Files of initial weights: what they may look like, what fits, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.models.build import build
from experiments.models.weights import Weights, load, read
from experiments.training.learner import initial_model
from samples import splits_of

KEY = "model.weights=FILE"
CLASSES = tuple("abcdefghij")


def model_of(*overrides, classes=10, seed=1):
    torch.manual_seed(seed)
    return build(compose_config(["data=digits", *overrides]), classes)


@pytest.fixture(scope="module")
def trained():
    return model_of(seed=7).network.state_dict()


def loaded(path, *overrides, classes=CLASSES):
    model = model_of(*overrides, classes=len(classes))
    line = load(read(path, KEY), model, "cnn", classes)
    return model.network.state_dict(), line


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict", "ema"])
def test_wrappers_and_prefixes_are_understood(trained, tmp_path, prefix, wrapper):
    content = {prefix + name: tensor for name, tensor in trained.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "file.pt")
    found, line = loaded(tmp_path / "file.pt")
    assert line == "" and all(torch.equal(found[name], trained[name]) for name in trained)
    assert read(tmp_path / "file.pt", KEY).digest() == Weights.of(trained, KEY).digest()


def test_the_average_is_taken_where_there_is_one(trained, tmp_path):
    other = {name: tensor + 1 for name, tensor in trained.items()}
    torch.save({"model": other, "ema": trained}, tmp_path / "file.pth")
    found, _ = loaded(tmp_path / "file.pth")
    assert all(torch.equal(found[name], trained[name]) for name in trained)


def test_safetensors_are_the_same_weights(trained, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in trained.items()}, tmp_path / "file.safetensors")
    found, line = loaded(tmp_path / "file.safetensors")
    assert line == "" and all(torch.equal(found[name], trained[name]) for name in trained)
    assert read(tmp_path / "file.safetensors", KEY).digest() == Weights.of(trained, KEY).digest()


def test_the_whole_classifier_is_understood(tmp_path):
    model = model_of("data.mean=[0.5,0.5,0.5]", seed=3)
    torch.save(model.state_dict(), tmp_path / "file.pth")
    found, line = loaded(tmp_path / "file.pth")
    assert line == "" and torch.equal(found["0.weight"], model.network[0].weight)


def test_a_head_for_other_classes_stays_random(trained, tmp_path):
    torch.save(trained, tmp_path / "file.pth")
    found, line = loaded(tmp_path / "file.pth", classes=("a", "b", "c"))
    assert line == f"{KEY}: 6 of 8 tensors taken; random: 9.weight, 9.bias"
    assert torch.equal(found["7.weight"], trained["7.weight"]) and found["9.weight"].shape == (3, 256)


@pytest.mark.parametrize(("name", "bias"), [("efficientnet_b0", 0), ("squeezenet1_1", 1)])
def test_a_new_head_starts_with_small_weights(tmp_path, name, bias):
    """The libraries' own are for a thousand classes: with three, the first loss of EfficientNet was far above log 3."""
    network = ("model=torchvision", f"model.name={name}", "data.image_size=64")
    torch.save(model_of(*network, classes=5).network.state_dict(), tmp_path / "file.pth")
    model = model_of(*network, classes=3)
    load(read(tmp_path / "file.pth", KEY), model, name, ("a", "b", "c"))
    head = model.network.get_submodule(model.head_prefix.rstrip("."))
    assert 0.008 < head.weight.std() < 0.012 and (head.bias == bias).all()


def test_the_digest_is_that_of_the_values(trained):
    one = Weights.of(trained, KEY)
    backwards = Weights.of(dict(reversed(trained.items())), "model.weights=elsewhere")
    changed = Weights.of({**trained, "9.bias": trained["9.bias"] + 1e-3}, KEY)
    renamed = Weights.of({f"x.{name}": tensor for name, tensor in trained.items()}, KEY)
    assert one.digest() == backwards.digest()
    assert len({one.digest(), changed.digest(), renamed.digest()}) == 3


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_pickle_with_code_is_refused_and_not_executed(trained, here):
    torch.save({**trained, "evil": Evil()}, "file.pth")
    (here / "plain.pth").write_bytes(pickle.dumps({**trained, "evil": Evil()}))
    for file in ("file.pth", "plain.pth"):
        with pytest.raises(UserError, match=rf"{KEY}: {file} has objects other than tensors.*not loaded"):
            read(here.joinpath(file).relative_to(here), KEY)
    assert not (here / "executed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 50_000])
def test_a_truncated_file_is_damaged(trained, tmp_path, suffix, kept):
    path = tmp_path / f"file{suffix}"
    if suffix == ".pth":
        torch.save(trained, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in trained.items()}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{KEY}: .*file{suffix} .*damaged") as caught:
        read(path, KEY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], {"state_dict": {}}])
def test_a_file_without_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=rf"{KEY}: .*has no (tensors|weights)"):
        read(tmp_path / "file.pth", KEY)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            ("model=fastnet",),
            "these are not the weights of cnn: 0 of its 8 tensors fit; the first that do not: 0.weight",
        ),
        (
            ("model.filters=16",),
            "these are not the weights of cnn: 3 of its 8 tensors fit; the first that do not: 0.weight is (32, 3, 4, 4) in the network, (16, 3, 4, 4) there",
        ),
        (("model.blocks=3",), "these are not the weights of cnn: "),
    ],
)
def test_weights_of_another_network_are_refused(other, message, tmp_path):
    torch.save(model_of(*other).network.state_dict(), tmp_path / "file.pth")
    with pytest.raises(UserError) as caught:
        loaded(tmp_path / "file.pth")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_a_larger_network_are_refused(tmp_path):
    """ResNet-18 has only layers that ResNet-34 has, too, with the same shapes."""
    small = ("data.image_size=32", "model=torchvision")
    torch.save(model_of(*small, "model.name=resnet34").network.state_dict(), tmp_path / "file.pth")
    model = model_of(*small, "model.name=resnet18")
    with pytest.raises(
        UserError, match=r"not the weights of resnet18: 122 of its 122 tensors fit; .*layer1.2.conv1.weight is missing"
    ):
        load(read(tmp_path / "file.pth", KEY), model, "resnet18", CLASSES)


def test_of_a_run_what_fits_is_taken(trained):
    model = model_of("data.image_size=40", classes=3)
    fresh = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    line = load(Weights.of(trained, "model.weights=run:abc", CLASSES), model, "cnn", ("x", "y", "z"))
    assert line == "model.weights=run:abc: 5 of 8 tensors taken; random: 7.weight, 9.weight, 9.bias"
    after = model.network.state_dict()
    assert torch.equal(after["3.weight"], trained["3.weight"]) and torch.equal(after["7.weight"], fresh["7.weight"])


def test_the_head_of_a_run_is_taken_for_its_own_classes_only(trained):
    of_run = Weights.of(trained, "model.weights=run:abc", CLASSES)
    same, others = model_of(), model_of()
    assert load(of_run, same, "cnn", CLASSES) == ""
    assert "random: 9.weight, 9.bias" in load(of_run, others, "cnn", CLASSES[::-1])
    assert torch.equal(same.network[9].weight, trained["9.weight"])
    assert not torch.equal(others.network[9].weight, trained["9.weight"])


def test_a_run_of_another_network_is_refused():
    fast = Weights.of(model_of("model=fastnet").network.state_dict(), "model.weights=run:abc", CLASSES)
    with pytest.raises(UserError, match=r"model\.weights=run:abc: these are not the weights of cnn: 0 of its 8"):
        load(fast, model_of(), "cnn", CLASSES)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_weights_that_were_loaded_are_not_computed_from_images(classes):
    overrides = ("data=digits", "model=fastnet", "model.widths=[4,4]")
    splits = splits_of(*overrides)
    given = model_of(*overrides, seed=5).network.state_dict()
    model = initial_model(compose_config(list(overrides)), splits, Weights.of(given, KEY, classes))
    assert torch.equal(model.network.whitening.weight, given["whitening.weight"])
    assert model.weights_digest == Weights.of(given, KEY).digest()
    fresh = initial_model(compose_config(list(overrides)), splits)
    assert fresh.weights_digest is None
    assert not torch.equal(fresh.network.whitening.weight, given["whitening.weight"])


def test_old_names_of_torchvisions_files(tmp_path):
    names = {
        "features.denseblock1.denselayer1.norm.1.weight": "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock4.denselayer16.conv.2.weight": "features.denseblock4.denselayer16.conv2.weight",
        "encoder.layers.encoder_layer_3.mlp.linear_1.weight": "encoder.layers.encoder_layer_3.mlp.0.weight",
        "encoder.layers.encoder_layer_3.mlp.linear_2.bias": "encoder.layers.encoder_layer_3.mlp.3.bias",
    }
    assert list(Weights.of({name: torch.zeros(1) for name in names}, KEY).tensors) == list(names.values())


def test_position_embeddings_are_resized(tmp_path):
    small = ("model=torchvision", "model.name=vit_b_32")
    torch.save(model_of(*small, "data.image_size=64").network.state_dict(), tmp_path / "file.pth")
    model = model_of(*small, "data.image_size=96")
    assert load(read(tmp_path / "file.pth", KEY), model, "vit_b_32", CLASSES) == ""
    assert model.network.encoder.pos_embedding.shape == (1, 10, 768)
    assert np.isfinite(model(torch.zeros((1, 3, 96, 96), dtype=torch.uint8)).detach().numpy()).all()
