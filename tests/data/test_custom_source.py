"""A custom data source is one class in the working directory and one YAML file, and nothing in the package."""

import sys

import pytest

from experiments.config import UserError
from experiments.config.composition import with_defaults
from experiments.config.loading import compose_config
from experiments.data import load_all, load_splits

SOURCE = """
import numpy as np
from experiments.data import Images, Source


class Shapes(Source):
    '''Light squares on the left, or on the right, of dark images.'''

    def listing(self):
        return ()

    def read(self, listing, seed):
        size, count = self.settings.image_size, self.settings.parameters["count"]
        pixels = np.random.default_rng(seed).integers(0, 99, (count, 3, size, size), dtype=np.uint8)
        labels = np.arange(count) % 2
        for image, label in zip(pixels, labels):
            image[:, 4:12, 4 + 12 * label : 12 + 12 * label] += 150
        images = Images(pixels, labels, ("left", "right"))
        return images[: count // 2], images[count // 2 :]


class Small(Shapes):
    def read(self, listing, seed):
        return tuple(Images(part.pixels[..., :8, :8], part.labels, part.classes) for part in super().read(listing, seed))


class Uneven(Small):
    def read(self, listing, seed):
        train, test = Shapes.read(self, listing, seed)
        return train, super().read(listing, seed)[0], test


class Lacking(Source):
    def listing(self):
        return ()
"""
YAML = "defaults: [_base]\n_target_: shapes_for_test.Shapes\nname: shapes\nvalidation_size: 0.2\ncount: 400\n"


@pytest.fixture
def shapes(here, monkeypatch):
    """A working directory with the source; the overrides that choose it."""
    (here / "shapes_for_test.py").write_text(SOURCE)
    (here / "own/data").mkdir(parents=True)
    (here / "own/data/shapes.yaml").write_text(YAML)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield [f"hydra.searchpath=[file://{here}/own]", "data=shapes"]
    sys.modules.pop("shapes_for_test", None)


@pytest.mark.slow
def test_a_custom_source_trains_and_is_evaluated(shapes, here, command):
    options = ("--config-dir", "own", "data=shapes", "data.count=600", "training.epochs=1", "threads=1")
    done = command("train.py", *options, cwd=here)
    assert done.returncode == 0, done.stderr
    assert "shapes: 240 train, 60 validation, 300 test" in done.stdout.replace("\n", " ")
    again = command("train.py", *options, cwd=here)
    assert again.returncode == 0 and "finished" in again.stdout, again.stdout  # the same images: the same run
    evaluated = command("scripts/evaluate.py", "--experiment", "shapes", cwd=here)
    assert evaluated.returncode == 0 and "test/accuracy" in evaluated.stdout, evaluated.stderr
    for script, chosen in (("evaluate", ("--data", "shapes", "data.count=40")), ("explore", ("data=shapes",))):
        done = command(f"scripts/{script}.py", "--config-dir", "own", *chosen, cwd=here)
        assert done.returncode == 0 and "shapes" in done.stdout, done.stderr


def test_the_settings_survive_being_saved(shapes):
    config = compose_config([*shapes, "data.count=30"])
    assert config.data.parameters == {"count": 30} and config.data.validation_size == 0.2
    assert with_defaults(config.to_dict()) == config
    saved = config.to_dict()
    del saved["data"]["extra"]  # as if this key of all sources were newer than the run
    assert with_defaults(saved) == config


def test_images_are_read_again_only_if_they_are_others(shapes):
    config, other, larger = (
        compose_config([*shapes, *more]).data
        for more in (["data.count=40"], ["data.count=40", "data.seed=2"], ["data.count=60"])
    )
    splits = load_splits(config)
    assert load_splits(config) is splits and load_splits(other).digest != splits.digest
    assert [len(part) for part in load_splits(larger).parts().values()] == [24, 6, 30]
    assert len(load_all(config)) == 40


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.count=many", "data.count=many: must have the type int, like 400 in its YAML file"),
        ("data.cuont=3", "data.cuont: there is no such key; did you mean data.count?"),
        ("data.split=none", "data.split=none: must be one of random, stratified, first"),
        ("data._target_=Shapes", "data._target_=Shapes: must be the dotted path of a data source's class"),
    ],
)
def test_a_mistake_in_its_keys_is_named(shapes, override, message):
    with pytest.raises(UserError) as caught:
        compose_config([*shapes, override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shapes_for_test.Circles", "there is no such class"),
        ("nowhere.Shapes", "there is no such class"),
        ("pathlib.Path", "must be a class derived from experiments.data.Source"),
        ("shapes_for_test.Lacking", "the class lacks read"),
        ("shapes_for_test.Small", "data.image_size=32: shapes_for_test.Small returns images of 8x8"),
        ("shapes_for_test.Uneven", "data.image_size=32: shapes_for_test.Uneven returns images of 8x8"),
    ],
)
def test_a_mistake_in_its_class_is_named(shapes, target, message):
    with pytest.raises(UserError, match=message):
        load_splits(compose_config([*shapes, f"data._target_={target}"]).data)


@pytest.mark.parametrize("choice", ["cifar10", "cifar100", "digits", "image_folder"])
def test_runs_saved_without_the_class_of_their_source_are_read(choice, tmp_path):
    config = compose_config([f"data={choice}", *([f"data.root={tmp_path}"] if choice == "image_folder" else [])])
    saved = config.to_dict()
    del saved["data"]["_target_"]
    assert with_defaults(saved) == config
