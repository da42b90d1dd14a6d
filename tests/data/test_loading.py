"""Splits of the configured source: cached between runs of a process, with extra images added."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from experiments.config import UserError
from experiments.config.composition import with_defaults
from experiments.config.loading import compose_config
from experiments.data import load_splits
from samples import paint, splits_of


def test_digits():
    splits = splits_of("data=digits")
    assert [len(part) for part in splits.parts().values()] == [1200, 300, 297]
    assert splits.image_shape == (3, 32, 32) and splits.classes == tuple("0123456789")
    assert splits.train.pixels.max() == 255 and splits.train.pixels.dtype == np.uint8
    small = load_digits()
    assert splits.test.labels.tolist() == small.target[1500:].tolist()
    eight = splits_of("data=digits", "data.image_size=8", "model.kernel_size=2").test
    assert np.array_equal(eight.pixels[:, 0], (small.images[1500:] * (255 / 16)).round())


def test_the_next_run_of_a_process_gets_the_same_images_unless_a_file_changed(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first = splits_of(*overrides)
    assert splits_of(*overrides) is first
    assert splits_of(*overrides, seed=2).train.source is first.train.source
    paint(picture_folder, "cat", 1, 500)
    again = splits_of(*overrides)
    assert [sum(map(len, splits.parts().values())) for splits in (first, again)] == [30, 31]


def test_the_split_has_a_seed_of_its_own(picture_folder, here):
    folder = ("data=image_folder", f"data.root={picture_folder}")
    first, other_seed, other_split = (
        load_splits(compose_config([*folder, *more]).data) for more in ((), ("seed=1",), ("data.seed=1",))
    )
    assert other_seed is first
    assert set(other_split.test.names) != set(first.test.names)
    assert compose_config(["data=digits"]).data.seed == 888


def test_a_run_of_an_earlier_version_was_split_by_its_seed():
    saved = compose_config(["data=digits", "seed=5"]).to_dict()
    del saved["data"]["seed"]
    assert with_defaults(saved).data.seed == 5


def test_the_first_pictures_of_a_folder_are_all_of_one_class(picture_folder, here):
    folder = ("data=image_folder", f"data.root={picture_folder}")
    with pytest.raises(UserError, match=r"data\.split=first: the images are sorted by class"):
        load_splits(compose_config([*folder, "data.split=first"]).data)


def test_extra_images_join_the_training_set_only(tmp_path):
    paint(tmp_path, "tigers", 3, 0)
    extra = f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}, {{path: {tmp_path}/tigers/0.png, label: 3}}]"
    before, after = splits_of("data=digits"), splits_of("data=digits", extra)
    assert after.classes == (*before.classes, "tiger")
    assert after.train.labels[-4:].tolist() == [10, 10, 10, 3] and len(after.train) == len(before.train) + 4
    assert np.array_equal(after.validation.pixels, before.validation.pixels) and np.array_equal(
        after.test.pixels, before.test.pixels
    )
    assert after.digest != before.digest


def test_a_test_image_is_refused_as_an_extra_image(tmp_path):
    Image.fromarray(splits_of("data=digits").test.pixels[0].transpose(1, 2, 0)).save(tmp_path / "known.png")
    with pytest.raises(UserError, match=r"known\.png is also in the validation or test set"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/known.png, label: new}}]")


def test_extra_images_are_read_again_when_they_change(tmp_path):
    paint(tmp_path, "tigers", 3, 0)
    overrides = ("data=digits", f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}]")
    first = splits_of(*overrides)
    assert splits_of(*overrides) is first
    paint(tmp_path, "tigers", 4, 0, size=30)
    again = splits_of(*overrides)
    assert len(again.train) == len(first.train) + 1
    assert not np.array_equal(again.train.pixels[-4], first.train.pixels[-3])


def test_a_missing_extra_image_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"data\.extra: there is no file or folder"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/nowhere.png, label: new}}]")
    with pytest.raises(UserError, match="there are no pictures in"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}, label: new}}]")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "pictures"),
        (["data.root=./pictures/"], "pictures"),
        (["data.name=pets"], "pets"),
        (["data.root=."], "folder"),
        (["data.root=/"], "image_folder"),
        (["tracking.experiment=mine"], "mine"),
    ],
)
def test_the_data_set_and_its_experiment_have_the_name_of_the_folder(overrides, name, tmp_path, monkeypatch):
    (tmp_path / "folder/pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "folder")
    config = compose_config(["data=image_folder", "data.root=pictures", *overrides])
    assert config.experiment == name
    assert config.data.title == ("pictures" if name == "mine" else name)
    assert compose_config(["data=digits"]).experiment == "digits"
