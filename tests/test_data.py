"""Sources, splits and one's own pictures."""

import logging
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.composition import load as compose
from experiments.config import UserError
from experiments.data import load
from experiments.data.images import Images
from experiments.data.splitting import split


def splits_of(*overrides, seed=1):
    return load(compose(list(overrides)).data, seed)


def paint(folder, name, count, start, size=20):
    """`count` different pictures in `folder/name`."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    paint(tmp_path / "pictures", "cat", 10, 0)
    paint(tmp_path / "pictures", "dog", 20, 100)
    return tmp_path / "pictures"


# Splits


@pytest.mark.parametrize("how", ["random", "stratified", "first"])
@pytest.mark.parametrize("size", [200, 0.2])
def test_a_split_divides_all_rows(how, size):
    labels = np.arange(1000) % 10
    kept, held_out = split(labels, size, how, 1, "key")
    assert len(held_out) == 200 and np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(1000))


def test_first_is_the_notebooks_split():
    assert np.array_equal(split(np.zeros(10), 4, "first", 1, "key")[1], np.arange(4))


def test_random_follows_the_seed():
    parts = [split(np.zeros(1000), 100, "random", seed, "key")[1] for seed in (1, 1, 2)]
    assert np.array_equal(parts[0], parts[1]) and not np.array_equal(parts[0], parts[2])


def test_stratified_keeps_the_shares():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    assert np.bincount(labels[split(labels, 100, "stratified", 1, "key")[1]]).tolist() == [70, 20, 10]


def test_a_class_too_small_to_stratify_is_said():
    with pytest.raises(UserError, match=r"key=2.*data\.split=random"):
        split(np.array([0, 0, 0, 1]), 2, "stratified", 1, "key")


# digits


def test_digits():
    splits = splits_of("data=digits")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [1200, 300, 297]
    assert splits.image_shape == (3, 32, 32) and splits.classes == tuple("0123456789")
    assert splits.train.pixels.max() == 255 and splits.train.pixels.dtype == np.uint8


def test_the_digest_changes_with_any_pixel_label_or_place():
    pixels, labels = np.zeros((4, 3, 8, 8), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    images = [
        Images(pixels, labels, ("a", "b")),
        Images(pixels, labels, ("a", "c")),
        Images(pixels + 1, labels, ("a", "b")),
    ]
    images.append(Images(pixels, labels + 1, ("a", "b")))
    assert len({image.digest for image in images}) == 4
    assert splits_of("data=digits").digest == splits_of("data=digits").digest
    assert splits_of("data=digits").digest != splits_of("data=digits", seed=2).digest


# CIFAR


def test_cifar_has_its_sizes_and_shares_no_image(cifar_root):
    splits = splits_of(f"data.root={cifar_root}")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40_000, 10_000, 10_000]
    seen = np.concatenate([part.fingerprints() for part in (splits.train, splits.validation, splits.test)])
    assert len(np.unique(seen)) == 60_000
    content = pickle.loads((cifar_root / "cifar-10-batches-py/test_batch").read_bytes())
    assert np.array_equal(splits.test.pixels[7].ravel(), content[b"data"][7])
    assert splits.test.labels[7] == content[b"labels"][7] and splits.classes[3] == "class3"


class Evil:
    def __reduce__(self):
        return (print, ("code of a pickle ran",))


def python_2_array(count):
    """As the official files hold it: written by Python 2, whose strings are bytes and whose numpy had another name."""
    pickled = pickle.dumps({b"data": np.zeros((count, 3072), dtype=np.uint8), b"labels": [0] * count}, protocol=2)
    return pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def replaced(cifar_root, tmp_path, content):
    """The data set with another test_batch."""
    copy = tmp_path / "cifar-10-batches-py"
    copy.mkdir()
    for file in (cifar_root / "cifar-10-batches-py").iterdir():
        (copy / file.name).hardlink_to(file)
    (copy / "test_batch").unlink()
    (copy / "test_batch").write_bytes(content)
    return f"data.root={tmp_path}"


def test_a_pickle_runs_no_code(cifar_root, tmp_path, capsys):
    root = replaced(cifar_root, tmp_path, pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"test_batch.*asks for .*print"):
        splits_of(root)
    assert "ran" not in capsys.readouterr().out


def test_the_old_name_of_numpys_module_is_known(cifar_root, tmp_path):
    assert len(splits_of(replaced(cifar_root, tmp_path, python_2_array(10_000))).test) == 10_000


@pytest.mark.parametrize(
    "content",
    [
        python_2_array(9_999),
        python_2_array(10_000)[:-5000],
        b"",
        pickle.dumps([1]),
        pickle.dumps({b"data": np.zeros((10_000, 3072), dtype=np.uint8), b"labels": [10] * 10_000}),
        pickle.dumps({b"data": np.zeros((10_000, 3072), dtype=np.float32), b"labels": [1] * 10_000}),
    ],
    ids=["count", "cut", "empty", "list", "labels", "floats"],
)
def test_a_broken_file_is_named(cifar_root, tmp_path, content):
    with pytest.raises(UserError, match="test_batch"):
        splits_of(replaced(cifar_root, tmp_path, content))


# Folders of pictures


def test_a_folder_a_class(folder, here):
    splits = splits_of("data=image_folder", f"data.root={folder}", "data.image_size=16")
    assert splits.classes == ("cat", "dog") and splits.image_shape == (3, 16, 16)
    assert [np.bincount(part.labels).tolist() for part in (splits.train, splits.validation, splits.test)] == [
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


def test_pictures_are_decoded_once_and_again_when_they_change(folder, here):
    overrides = ("data=image_folder", f"data.root={folder}")
    first = splits_of(*overrides)
    caches = set(here.glob("outputs/cache/*.npy"))
    assert splits_of(*overrides).digest == first.digest and set(here.glob("outputs/cache/*")) == caches
    paint(folder, "cat", 1, 500, size=30)
    (folder / "cat/500.png").rename(folder / "cat/0.png")
    assert splits_of(*overrides).digest != first.digest


def test_copies_of_a_picture_stay_on_one_side(folder, here, caplog):
    for number in range(10):
        shutil.copy(folder / f"cat/{number}.png", folder / f"cat/copy{number}.png")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={folder}")
    parts = [set(part.fingerprints().tolist()) for part in (splits.train, splits.validation, splits.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert "left out of training" in caplog.text


def test_a_bad_picture_in_a_folder_is_named(folder, here):
    (folder / "cat/broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png"):
        splits_of("data=image_folder", f"data.root={folder}")
    assert not list(here.glob("outputs/cache/*"))


def test_nothing_but_copies_is_said(tmp_path, here):
    for name in "ab":
        paint(tmp_path / "set", name, 1, 0)
        for number in range(1, 8):
            shutil.copy(tmp_path / f"set/{name}/0.png", tmp_path / f"set/{name}/{number}.png")
    with pytest.raises(UserError, match="nothing is left to train on"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")


def test_splits_are_not_taken_for_classes(tmp_path, here, caplog):
    for part in ("train", "val"):
        for name in "ab":
            paint(tmp_path / f"set/{part}", name, 6, ord(name) * (1 + len(part)))
    with pytest.raises(UserError, match=r"must hold both train/ and test/.*it holds train, val"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")
    paint(tmp_path / "set/test", "a", 2, 900)
    with caplog.at_level(logging.WARNING):
        splits_of("data=image_folder", f"data.root={tmp_path}/set")
    assert "its validation folder is not used" in caplog.text


def test_any_ending_that_pillow_knows_counts_and_others_are_mentioned(folder, here, caplog):
    (folder / "cat/0.png").rename(folder / "cat/0.jfif")
    (folder / "cat/notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        splits = splits_of("data=image_folder", f"data.root={folder}")
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 30
    assert "1 files are ignored" in caplog.text
    (folder / "bird").mkdir()
    with pytest.raises(UserError, match="there are no pictures in bird"):
        splits_of("data=image_folder", f"data.root={folder}")


def test_a_folder_without_classes_is_said(tmp_path, here):
    with pytest.raises(UserError, match="at least two folders"):
        splits_of("data=image_folder", f"data.root={tmp_path}")


# One's own pictures


def test_own_pictures_join_the_training_set_alone(tmp_path):
    paint(tmp_path, "tigers", 3, 0)
    extra = f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}, {{path: {tmp_path}/tigers/0.png, label: 3}}]"
    before, after = splits_of("data=digits"), splits_of("data=digits", extra)
    assert after.classes == (*before.classes, "tiger")
    assert after.train.labels[-4:].tolist() == [10, 10, 10, 3] and len(after.train) == len(before.train) + 4
    assert np.array_equal(after.validation.pixels, before.validation.pixels) and np.array_equal(
        after.test.pixels, before.test.pixels
    )
    assert after.digest != before.digest


def test_a_test_picture_is_refused_as_an_extra(tmp_path):
    Image.fromarray(splits_of("data=digits").test.pixels[0].transpose(1, 2, 0)).save(tmp_path / "known.png")
    with pytest.raises(UserError, match=r"known\.png is also in the validation or test set"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/known.png, label: new}}]")


def test_an_extra_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"data\.extra: there is no file or folder"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/nowhere.png, label: new}}]")
    with pytest.raises(UserError, match="holds no pictures"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}, label: new}}]")
