"""Folders of pictures: classes, splits, and what is wrong with a folder."""

import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data.sources.image_folder import ImageFolder
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
    assert re.search(
        r"\d+ copies of validation or test images: not used for training \(cat/\w+\.png, cat/", caplog.text
    )


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
    for part in ("test", "val"):
        for name in "ab":
            paint(tmp_path / f"set/{part}", name, 6, ord(name) * (1 + len(part)))
    with pytest.raises(UserError, match=r"must contain both train/ and test/.*it contains test, val, but no train"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")


def paint_splits(root, **parts):
    """A folder for each part, with folders of the classes a and b; returns the override."""
    for start, (part, count) in enumerate(parts.items()):
        for label, name in enumerate("ab"):
            paint(root / part, name, count, 1000 * start + 100 * label)
    return f"data.root={root}"


@pytest.mark.parametrize("names", [("Training", "Testing"), ("TRAIN", "Test"), ("training", "test")])
def test_splits_have_many_names(tmp_path, here, names):
    root = paint_splits(tmp_path / "set", **dict.fromkeys(names, 6))
    splits = splits_of("data=image_folder", root, "data.validation_size=4")
    assert splits.classes == ("a", "b")
    assert [len(part) for part in splits.parts().values()] == [8, 4, 12]
    assert all(name.startswith(names[1]) for name in splits.test.names)


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_a_validation_folder_is_the_validation_set(tmp_path, here, name):
    root = paint_splits(tmp_path / "set", **{"train": 6, "test": 2, name: 3})
    splits = splits_of("data=image_folder", root)
    assert [len(part) for part in splits.parts().values()] == [12, 6, 4]
    assert all(found.startswith(f"{name}/") for found in splits.validation.names)


def test_a_split_is_called_drawn_only_where_it_was(tmp_path, here):
    for part in ("train", "val", "test"):
        for label, name in enumerate(("cat", "dog")):
            paint(tmp_path / "given" / part, name, 6, 100 * label + 1000 * len(part))
            paint(tmp_path / "drawn", name, 10, 100 * label)
    given, drawn = (splits_of("data=image_folder", f"data.root={tmp_path / name}") for name in ("given", "drawn"))
    assert not given.drawn and drawn.drawn


def test_a_copy_in_the_validation_folder_is_not_trained_on(tmp_path, here):
    root = paint_splits(tmp_path / "set", train=6, test=2, val=3)
    shutil.copy(tmp_path / "set/val/a/2000.png", tmp_path / "set/train/a/copy.png")
    splits = splits_of("data=image_folder", root)
    assert "train/a/copy.png" not in splits.train.names and len(splits.train) == 12


def test_a_folder_that_mixes_splits_and_classes_asks_which(tmp_path, here, caplog):
    for start, name in enumerate(("train", "car", "plane")):
        paint(tmp_path / "set", name, 8, 100 * start)
    root = f"data.root={tmp_path}/set"
    with pytest.raises(UserError, match=r"train.*car, plane.*set data\.layout=classes$"):  # splits need a test set
        splits_of("data=image_folder", root)
    assert splits_of("data=image_folder", root, "data.layout=classes").classes == ("car", "plane", "train")
    paint_splits(tmp_path / "other", train=6, test=2, readme=1)
    with pytest.raises(UserError, match=r"test, train.*readme.*data\.layout=classes.*to use only.*data\.layout=splits"):
        splits_of("data=image_folder", f"data.root={tmp_path}/other")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={tmp_path}/other", "data.layout=splits")
    assert splits.classes == ("a", "b") and "readme ignored" in caplog.text


def test_splits_without_classes_are_not_classes(tmp_path, here):
    paint(tmp_path / "set", "train", 8, 0)
    paint(tmp_path / "set", "test", 8, 100)
    root = f"data.root={tmp_path}/set"
    with pytest.raises(UserError, match=r"no folders of classes.*data\.layout=classes"):
        splits_of("data=image_folder", root)
    assert splits_of("data=image_folder", root, "data.layout=classes").classes == ("test", "train")


def test_two_folders_of_one_split_are_refused(tmp_path, here):
    root = paint_splits(tmp_path / "set", train=3, Training=3, test=2)
    with pytest.raises(UserError, match="Training and train are both"):
        splits_of("data=image_folder", root)


def test_broken_pictures_are_reported_all_at_once(picture_folder, here):
    for number in range(23):
        (picture_folder / f"cat/broken{number:02}.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        splits_of("data=image_folder", f"data.root={picture_folder}")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("23 pictures cannot be read") and lines[-1].strip() == "and 3 more"
    assert [f"broken{number:02}.png" in line for number, line in enumerate(lines[1:21])] == [True] * 20
    assert not list(here.glob("outputs/cache/*"))[1:]  # nothing but the lock


def test_broken_pictures_of_all_splits_are_reported_at_once(tmp_path, here):
    root = paint_splits(tmp_path / "set", train=3, val=3, test=2)
    for part in ("train", "val", "test"):
        (tmp_path / f"set/{part}/a/broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        splits_of("data=image_folder", root)
    assert all(f"{part}/a/broken.png" in str(caught.value) for part in ("train", "val", "test"))


def test_broken_extra_images_are_reported_all_at_once(tmp_path):
    (tmp_path / "tigers").mkdir()
    for number in range(3):
        (tmp_path / f"tigers/{number}.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}]")
    assert all(f"tigers/{number}.png" in str(caught.value) for number in range(3))


def test_pictures_that_are_nearly_black_are_noticed(tmp_path, here, caplog):
    for label, name in enumerate("ab"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(8):
            ten_bits = np.random.default_rng(10 * label + number).integers(0, 1024, (16, 16), dtype=np.uint16)
            Image.fromarray(ten_bits).save(tmp_path / f"set/{name}/{number}.png")
    with caplog.at_level(logging.WARNING):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")
    assert "less than a tenth of the range" in caplog.text and "0 to 4 of 255" in caplog.text


def test_every_extension_that_pillow_opens_counts_and_others_are_mentioned(picture_folder, here, caplog):
    (picture_folder / "cat/0.png").rename(picture_folder / "cat/0.jfif")
    (picture_folder / "cat/notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={picture_folder}")
    assert sum(map(len, splits.parts().values())) == 30
    assert "1 file ignored: 1 .txt" in caplog.text
    (picture_folder / "bird").mkdir()
    with pytest.raises(UserError, match="there are no pictures in bird"):
        splits_of("data=image_folder", f"data.root={picture_folder}")


def test_a_folder_without_classes_is_reported(tmp_path, here):
    with pytest.raises(UserError, match="at least two folders"):
        splits_of("data=image_folder", f"data.root={tmp_path}")


def test_with_the_layout_of_imagenet_val_is_the_test_set(tmp_path, here, caplog):
    root = paint_splits(tmp_path / "set", train=10, val=4)
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", root)
    assert [len(part) for part in splits.parts().values()] == [16, 4, 8]
    assert all(name.startswith("val/") for name in splits.test.names)
    assert "val/ is the test set, because there is no test/; the validation set is taken from train/" in caplog.text
    folds = splits_of("data=image_folder", root, "data.folds=5", "data.fold=1")
    assert sorted(folds.test.names) == sorted(splits.test.names) and len(folds.validation) == 4


def test_a_test_folder_without_labels_is_not_used(tmp_path, here, caplog):
    root = paint_splits(tmp_path / "set", train=10, val=4)
    paint(tmp_path / "set", "test", 3, 5000)
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", root)
    assert all(name.startswith("val/") for name in splits.test.names)
    assert "val/ is the test set, because test/ has no folders of classes" in caplog.text
    assert "3 pictures ignored, because they are in no folder of a class" in caplog.text


def test_other_folders_beside_the_layout_of_imagenet_are_left_out_on_demand(tmp_path, here):
    root = paint_splits(tmp_path / "set", train=10, val=4, devkit=1)
    with pytest.raises(UserError, match=r"to use only train, val, as splits, set data\.layout=splits"):
        splits_of("data=image_folder", root)
    assert splits_of("data=image_folder", root, "data.layout=splits").classes == ("a", "b")


def test_the_order_is_not_that_of_the_file_system(picture_folder, here, monkeypatch):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first, scandir = splits_of(*overrides), os.scandir

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", lambda folder=".": Backwards(list(scandir(folder))[::-1]))
    again = ImageFolder(compose_config(["data.seed=1", *overrides]).data)
    train, test = again.read(again.listing(), 1)
    assert test.names == first.test.names and sorted(train.names) == sorted(
        [*first.train.names, *first.validation.names]
    )


NAMES = {"cat": "tabby cat", "dog": "Hund"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "tabby cat\nHund\n"),
        ("names.json", json.dumps(NAMES)),
        ("names.json", json.dumps(["tabby cat", "Hund"])),
        ("index.json", json.dumps({"0": ["cow", "cow"], "1": ["dog", "Hund"], "2": ["cat", "tabby cat"]})),
    ],
)
def test_classes_have_readable_names(picture_folder, here, file, text):
    (here / file).write_text("\ufeff" + text, encoding="utf-8")
    splits = splits_of("data=image_folder", f"data.root={picture_folder}", f"data.class_names={file}")
    plain = splits_of("data=image_folder", f"data.root={picture_folder}")
    assert splits.classes == ("tabby cat", "Hund") and plain.classes == ("cat", "dog")
    assert splits.train.names == plain.train.names and np.array_equal(splits.test.labels, plain.test.labels)
    (here / file).write_text(text.replace("Hund", "Wolf"))
    assert (
        splits_of("data=image_folder", f"data.root={picture_folder}", f"data.class_names={file}").classes[1] == "Wolf"
    )


def test_a_name_that_two_classes_share_keeps_them_apart(picture_folder, here):
    (here / "names.json").write_text(json.dumps({"cat": "crane", "dog": "crane"}))
    splits = splits_of("data=image_folder", f"data.root={picture_folder}", "data.class_names=names.json")
    assert splits.classes == ("crane (cat)", "crane (dog)")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("names.txt", "cat\n", r"names\.txt: has 1 name, but there are 2 classes: cat, dog; .* in this order"),
        ("names.txt", "cat\n\nx\n", "has 3 names"),
        ("names.txt", "\nHund\n", "the name of cat is empty"),
        ("names.json", '{"cat": "Katze"}', "has no name for dog"),
        ("names.json", '{"cat": 3, "dog": "Hund"}', "must be"),
        ("names.json", '{"cat": ', "is not JSON"),
        ("names.json", "3", "must be"),
    ],
)
def test_wrong_class_names_are_explained(picture_folder, here, file, text, message):
    (here / file).write_text(text)
    with pytest.raises(UserError, match=rf"data\.class_names=.*{message}"):
        splits_of("data=image_folder", f"data.root={picture_folder}", f"data.class_names={file}")


SKIPPING = ("data=image_folder", "data.skip_broken=true")


def test_broken_pictures_are_left_out_on_demand(picture_folder, here, caplog):
    intact = splits_of("data=image_folder", f"data.root={picture_folder}")
    (picture_folder / "cat/broken.png").write_bytes(b"no picture")
    whole = (picture_folder / "dog/100.png").read_bytes()
    (picture_folder / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        splits = splits_of(*SKIPPING, f"data.root={picture_folder}")
    assert splits.digest == intact.digest
    assert [text.partition(":")[0] for text in splits.skipped] == ["cat/broken.png", "dog/cut.png"]
    assert "2 broken pictures left out: cat/broken.png, dog/cut.png" in caplog.text
    (picture_folder / "cat/broken.png").unlink()
    assert len(splits_of(*SKIPPING, f"data.root={picture_folder}").skipped) == 1
    (picture_folder / "dog/cut.png").unlink()
    assert not splits_of(*SKIPPING, f"data.root={picture_folder}").skipped


def test_broken_pictures_of_each_split_are_left_out(tmp_path, here):
    root = paint_splits(tmp_path / "set", train=3, val=3, test=2)
    for part in ("train", "val", "test"):
        (tmp_path / f"set/{part}/a/broken.png").write_bytes(b"no picture")
    splits = splits_of(*SKIPPING, root)
    assert [len(part) for part in splits.parts().values()] == [6, 6, 4] and len(splits.skipped) == 3


def test_a_class_of_broken_pictures_is_an_error(picture_folder, here):
    for file in (picture_folder / "cat").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="all pictures of cat are broken"):
        splits_of(*SKIPPING, f"data.root={picture_folder}")
