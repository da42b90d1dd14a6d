"""Initial weights of a run: of a file, of the library, of a finished run; their digest is part of what a run is."""

import shutil

import pytest
import torch

from conftest import DIGITS, family
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.experiment import run
from experiments.models.build import build
from experiments.models.weights import Weights
from experiments.runs.fingerprint import fingerprint
from experiments.runs.start import started
from experiments.runs.weights import initial_weights
from experiments.training.devices import choose_device
from experiments.training.learner import initial_model

QUICK = (*DIGITS, "training.epochs=1", "model.filters=4", "model.dense_width=8")


def save(path, *overrides, seed=1):
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build(compose_config([*QUICK, *overrides]), 10).network.state_dict(), path)


def identity(*overrides):
    config = compose_config([*QUICK, "tracking=none", *overrides])
    splits = load_splits(config.data)
    model = initial_model(config, splits, initial_weights(config))
    with started(config, Command(), splits, model, choose_device(config), None) as active:
        return active.folder.name


def test_a_run_is_identified_by_the_digest_of_its_weights(here):
    for name, seed in (("one.pth", 1), ("two.pth", 2)):
        save(here / name, seed=seed)
    shutil.copy(here / "one.pth", here / "copy.pt")
    first, copy, other, fresh = (
        identity(*given)
        for given in (["model.weights=one.pth"], ["model.weights=copy.pt"], ["model.weights=two.pth"], [])
    )
    assert first == copy and len({first, other, fresh}) == 3
    assert fingerprint(compose_config([*QUICK]), "cpu", "data") != fingerprint(
        compose_config([*QUICK]), "cpu", "data", "weights"
    )


def test_a_multirun_is_identified_by_the_digests_of_the_weights(here):
    from experiments.runs.identity import identify

    for name, seed in (("one.pth", 1), ("two.pth", 2)):
        save(here / name, seed=seed)
    shutil.copy(here / "one.pth", here / "copy.pt")

    def of(*files):
        return identify(
            {
                "data": ["data=digits"],
                "rest": [*QUICK[2:4]],
                "model.weights": [f"model.weights={file}" for file in files],
            }
        )

    assert of("one.pth") == of("copy.pt") != of("two.pth")
    assert of("one.pth", "two.pth") == of("two.pth", "copy.pt") != of("one.pth")


def test_training_starts_from_a_file(here):
    save(here / "own.pth", seed=4)
    config = compose_config([*QUICK, "model.weights=own.pth"])
    splits = load_splits(config.data)
    found = initial_model(config, splits, initial_weights(config)).network.state_dict()
    expected = torch.load(here / "own.pth")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    result = run(compose_config([*QUICK, "model.weights=own.pth", "tracking=none", "evaluate_test=false"]))
    assert len(result.history) == 1


@pytest.fixture
def pretrained(finished, here):
    """The overrides that name a finished run on ten digits, and its weights."""
    from experiments.runs.finished import load_run

    uri = f"sqlite:///{finished[0]}/mlflow.db"
    found = load_run("latest", uri=uri)
    return f"tracking.uri={uri}", found


@pytest.mark.parametrize("which", ["latest", "best", "prefix", "id"])
def test_the_weights_of_a_run(pretrained, which):
    uri, found = pretrained
    name = {"prefix": found.run_id[:6], "id": found.run_id}.get(which, which)
    config = compose_config([*DIGITS, uri, f"model.weights=run:{name}"])
    weights = initial_weights(config)
    assert weights.classes == found.classes and weights.digest() == Weights.of(found.model.state_dict(), "").digest()


def test_a_run_is_the_start_for_other_classes_and_another_size(pretrained, here, caplog):
    from samples import paint

    uri, found = pretrained
    for number, label in enumerate(("cat", "dog", "eel")):
        paint(here / "pictures", label, 8, 10 * number)
    folder = ("data=image_folder", "data.root=pictures", "data.image_size=40", "threads=1", "training.epochs=1")
    config = compose_config([*folder, uri, f"model.weights=run:{found.run_id}"])
    splits = load_splits(config.data)
    model = initial_model(config, splits, initial_weights(config))
    assert f"run:{found.run_id}: 5 of 8 tensors taken; random: 7.weight, 9.weight, 9.bias" in caplog.text
    assert torch.equal(model.network[3].weight, found.model.network[3].weight)


def test_other_means_than_those_of_the_run_are_named(pretrained, caplog):
    uri, _ = pretrained
    initial_weights(compose_config([*DIGITS, uri, "model.weights=run:latest", "data.mean=[0.5,0.5,0.5]"]))
    assert "was trained with data.mean=[0.0, 0.0, 0.0], not [0.5, 0.5, 0.5]" in caplog.text


def test_runs_that_are_not_there(pretrained):
    uri, _ = pretrained
    for name, message in (("zzz", "model.weights=run:zzz: no finished run has an id with this start"),):
        with pytest.raises(UserError, match=message):
            initial_weights(compose_config([*DIGITS, uri, f"model.weights=run:{name}"]))
    with pytest.raises(UserError, match=r"model\.weights=run:latest: .*there are no runs here"):
        initial_weights(compose_config([*DIGITS, "tracking.uri=sqlite:///nowhere.db", "model.weights=run:latest"]))


SQUEEZENET = ("data=digits", "model=torchvision", "model.name=squeezenet1_1", "model.weights=imagenet")


def test_published_weights_are_looked_for_in_their_folder(here, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no internet
    config = compose_config([*SQUEEZENET])
    with pytest.raises(UserError) as caught:
        initial_weights(config)
    file = "squeezenet1_1-b8a52dc0.pth"
    assert f"https://download.pytorch.org/models/{file}" in str(caught.value)
    assert (
        f"Instead, download it on another computer and put it at data/weights/{file} (model.weights=imagenet)"
        in str(caught.value)
    )
    assert not list(here.rglob("squeezenet*"))
    (here / "data/weights").mkdir(parents=True, exist_ok=True)
    (here / f"data/weights/{file}").write_bytes(b"another file")
    with pytest.raises(UserError, match=rf"{file} is damaged \(its SHA-256 does not start with b8a52dc0\)"):
        initial_weights(config)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_timm_may_be_put_there_by_hand(here, monkeypatch, suffix):
    from safetensors.torch import save_file

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    config = compose_config(["data=digits", "model=timm", "model.name=resnet18.a1_in1k", "model.weights=imagenet"])
    with pytest.raises(
        UserError, match=r"download it on another computer and put it at data/weights/resnet18\.a1_in1k\.safetensors"
    ):
        initial_weights(config)
    tensors = {"fc.bias": torch.arange(3.0)}
    (here / "data/weights").mkdir(parents=True, exist_ok=True)
    save = save_file if suffix == ".safetensors" else torch.save
    save(tensors, here / f"data/weights/resnet18.a1_in1k{suffix}")
    assert torch.equal(initial_weights(config).tensors["fc.bias"], tensors["fc.bias"])


@pytest.mark.slow
def test_a_multirun_over_weights(here, multirun):
    for name, seed in (("one.pth", 1), ("two.pth", 2)):
        save(here / name, seed=seed)
    code, output = multirun(here, *QUICK, "model.weights=null,one.pth,two.pth")
    assert code == 0, output
    _, _, children = family(here)
    assert sorted(children) == ["weights=null", "weights=one.pth", "weights=two.pth"]
    assert len({child.data.tags["fingerprint"] for child in children.values()}) == 3
