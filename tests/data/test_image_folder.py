"""Folders of pictures: classes, splits, and what is wrong with a folder."""

import logging
import re
import shutil

import numpy as np
import pytest

from experiments.config import UserError
from samples import paint, splits_of


def test_one_folder_per_class(picture_folder, here):
    splits = splits_of("data=image_folder", f"data.root={picture_folder}", "data.image_size=16")
    assert splits.classes == ("cat", "dog") and splits.image_shape == (3, 16, 16)
    assert [np.bincount(part.labels).tolist() for part in splits.parts().values()] == [
        [6, 13],
        [2, 3],
        [2, 4],
    ]


def test_train_and_test_folders(tmp_path, here):
    paint(tmp_path / "set/train", "cat", 8, 0)
    paint(tmp_path / "set/train", "dog", 8, 100)
    paint(tmp_path / "set/test", "dog", 3, 200)
    splits = splits_of("data=image_folder", f"data.root={tmp_path}/set", "data.validation_size=4")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 4, 3)
    assert splits.test.labels.tolist() == [1, 1, 1]
    paint(tmp_path / "set/test", "bird", 1, 300)
    with pytest.raises(UserError, match="bird has no folder"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")


def test_copies_of_a_picture_stay_in_one_split(picture_folder, here, caplog):
    for number in range(10):
        shutil.copy(picture_folder / f"cat/{number}.png", picture_folder / f"cat/copy{number}.png")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={picture_folder}")
    parts = [set(part.pixel_hashes().tolist()) for part in splits.parts().values()]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert re.search(r"not used for training: \d+ \(cat/\w+\.png, cat/", caplog.text)


def test_a_bad_picture_in_a_folder_is_named(picture_folder, here):
    (picture_folder / "cat/broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png"):
        splits_of("data=image_folder", f"data.root={picture_folder}")
    assert not list(here.glob("outputs/cache/*.npy"))


def test_a_folder_of_copies_only_is_reported(tmp_path, here):
    for name in "ab":
        paint(tmp_path / "set", name, 1, 0)
        for number in range(1, 8):
            shutil.copy(tmp_path / f"set/{name}/0.png", tmp_path / f"set/{name}/{number}.png")
    with pytest.raises(UserError, match="no image is left to train on"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")


def test_splits_are_not_taken_for_classes(tmp_path, here, caplog):
    for part in ("train", "val"):
        for name in "ab":
            paint(tmp_path / f"set/{part}", name, 6, ord(name) * (1 + len(part)))
    with pytest.raises(UserError, match=r"must contain both train/ and test/.*it contains train, val"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")
    paint(tmp_path / "set/test", "a", 2, 900)
    with caplog.at_level(logging.WARNING):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")
    assert "its validation folder is not used" in caplog.text


def test_every_extension_that_pillow_opens_counts_and_others_are_mentioned(picture_folder, here, caplog):
    (picture_folder / "cat/0.png").rename(picture_folder / "cat/0.jfif")
    (picture_folder / "cat/notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={picture_folder}")
    assert sum(map(len, splits.parts().values())) == 30
    assert "1 files are ignored" in caplog.text
    (picture_folder / "bird").mkdir()
    with pytest.raises(UserError, match="there are no pictures in bird"):
        splits_of("data=image_folder", f"data.root={picture_folder}")


def test_a_folder_without_classes_is_reported(tmp_path, here):
    with pytest.raises(UserError, match="at least two folders"):
        splits_of("data=image_folder", f"data.root={tmp_path}")
