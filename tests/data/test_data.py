"""Sources, splits and one's own pictures."""

import hashlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.batches import Batches
from experiments.data.decoding import read_picture
from experiments.data.images import Images, joined
from experiments.data.splitting import split


def splits_of(*overrides, seed=1):
    return load_splits(compose_config(list(overrides)).data, seed)


def paint(folder, name, count, start, size=20):
    """`count` different pictures in `folder/name`."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


def elsewhere(*overrides, before="pass"):
    """A process of its own that prints the digest of the splits."""
    program = (
        f"{before}\nfrom experiments.config.loading import compose_config as compose\nfrom experiments.data import load_splits as load\n"
        f"print(load(compose({list(overrides)}).data, 1).digest)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="."
    )


def told(process):
    """(digest, what it said beside)."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.split()[-1], err


def digest_of(*parts):
    """SHA-256 over those of three times (pixels, labels, classes), from plain arrays."""
    digests = [
        hashlib.sha256(repr((pixels.shape, classes)).encode() + labels.tobytes() + pixels.tobytes()).hexdigest()
        for pixels, labels, classes in parts
    ]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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
    small = load_digits()
    assert splits.test.labels.tolist() == small.target[1500:].tolist()
    eight = splits_of("data=digits", "data.image_size=8", "model.kernel_size=2").test
    assert np.array_equal(eight.pixels[:, 0], (small.images[1500:] * (255 / 16)).round())


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


def test_the_digest_is_that_of_the_arrays(folder, here):
    splits = splits_of("data=digits")
    parts = (splits.train, splits.validation, splits.test)
    assert splits.digest == digest_of(*((part.pixels, part.labels, tuple("0123456789")) for part in parts))

    pixels = np.stack([read_picture(file, 16) for name in ("cat", "dog") for file in sorted((folder / name).iterdir())])
    labels = np.repeat([0, 1], [10, 20])
    kept, test = split(labels, 0.2, "stratified", 1, "key")
    train, validation = split(labels[kept], 0.2, "stratified", 1, "key")
    expected = digest_of(
        *((pixels[rows], labels[rows], ("cat", "dog")) for rows in (kept[train], kept[validation], test))
    )
    assert splits_of("data=image_folder", f"data.root={folder}", "data.image_size=16").digest == expected


# Rows of a shared source


def pictures(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return pixels, Images(pixels, np.arange(count) % 3, ("a", "b", "c"))


def test_rows_of_rows_are_rows_of_the_same_source():
    pixels, images = pictures(20)
    some = images[np.array([7, 3, 11, 3])][1:][[2, 0]]
    assert some.source is images.source and some.rows.tolist() == [3, 3] and some.shape == (2, 3, 8, 8)
    assert np.array_equal(some.pixels, pixels[[3, 3]]) and some.labels.tolist() == [0, 0]
    assert np.array_equal(images[5:9].picture(2), pixels[7]) and len(images[[]].pixels) == 0
    assert images[4:9].digest == Images(pixels[4:9], images.labels[4:9], images.classes).digest


def test_parts_are_joined_without_a_copy_where_they_can():
    pixels, images = pictures(20)
    others, strange = pictures(5, seed=1)
    both = joined([images[:3], images[10:12]])
    assert both.source is images.source and np.array_equal(both.pixels, pixels[[0, 1, 2, 10, 11]])
    assert np.array_equal(joined([images[:3], strange]).pixels, np.concatenate([pixels[:3], others]))


def test_what_runs_share_cannot_be_written_to():
    splits = splits_of("data=digits")
    for array in (splits.train.source, splits.train.labels, splits.train.rows, splits.train.picture(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    splits.train.pixels[:] = 0  # a copy
    assert splits.train.pixels.any()


@pytest.mark.parametrize("order", ["as_is", "shuffle", "balanced"])
def test_batches_are_the_pictures_of_their_labels(folder, here, order):
    images = splits_of("data=image_folder", f"data.root={folder}").train
    known = dict(zip(images.fingerprints().tolist(), images.labels.tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(Batches(images, 4, torch.device("cpu"), order))
    pixels, labels, _rows = (torch.cat(part).numpy() for part in zip(*batches))
    found = Images(pixels, labels, images.classes)
    assert [known[mark] for mark in found.fingerprints().tolist()] == labels.tolist()
    assert order != "as_is" or found.digest == images.digest


# CIFAR


@pytest.fixture
def cifar_files(cifar_root, here):
    """The data set in `here`, where a test may replace its files; the cache is there as well."""
    copy = here / "cifar-10-batches-py"
    copy.mkdir()
    for file in (cifar_root / "cifar-10-batches-py").iterdir():
        (copy / file.name).hardlink_to(file)
    yield copy
    shutil.rmtree(here / "outputs", ignore_errors=True)  # 184 MB


def replace(file, content):
    file.unlink()  # it is linked to that of all tests
    file.write_bytes(content)


def test_cifar_has_its_sizes_and_shares_no_image(cifar_root, cifar_files):
    splits = splits_of("data.root=.")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40_000, 10_000, 10_000]
    seen = np.concatenate([part.fingerprints() for part in (splits.train, splits.validation, splits.test)])
    assert len(np.unique(seen)) == 60_000
    content = pickle.loads((cifar_root / "cifar-10-batches-py/test_batch").read_bytes())
    assert np.array_equal(splits.test.pixels[7].ravel(), content[b"data"][7])
    assert splits.test.labels[7] == content[b"labels"][7] and splits.classes[3] == "class3"


def test_cifar_is_decoded_once_and_again_when_a_file_changes(cifar_files):
    contents = [pickle.loads((cifar_files / name).read_bytes()) for name in (*BATCHES, "test_batch")]
    pixels = np.concatenate([content[b"data"] for content in contents]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([content[b"labels"] for content in contents])
    train, validation = split(labels[:50_000], 10_000, "random", 1, "key")
    classes = tuple(f"class{number}" for number in range(10))
    parts = ((pixels[rows], labels[rows], classes) for rows in (train, validation, slice(50_000, None)))
    expected = digest_of(*parts)
    assert splits_of("data.root=.").digest == expected

    file = cifar_files / "data_batch_3"
    state = file.stat()
    replace(file, bytes(state.st_size))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert told(elsewhere("data.root=."))[0] == expected
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(UserError, match="data_batch_3"):
        splits_of("data.root=.")


BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


class Evil:
    def __reduce__(self):
        return (print, ("code of a pickle ran",))


def python_2_array(count):
    """As the official files hold it: written by Python 2, whose strings are bytes and whose numpy had another name."""
    pickled = pickle.dumps({b"data": np.zeros((count, 3072), dtype=np.uint8), b"labels": [0] * count}, protocol=2)
    return pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_a_pickle_runs_no_code(cifar_files, capsys):
    replace(cifar_files / "test_batch", pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"test_batch.*asks for .*print"):
        splits_of("data.root=.")
    assert "ran" not in capsys.readouterr().out


def test_the_old_name_of_numpys_module_is_known(cifar_files):
    replace(cifar_files / "test_batch", python_2_array(10_000))
    assert len(splits_of("data.root=.").test) == 10_000


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
def test_a_broken_file_is_named(cifar_files, content):
    replace(cifar_files / "test_batch", content)
    with pytest.raises(UserError, match="test_batch"):
        splits_of("data.root=.")


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
    state = (folder / "cat/0.png").stat()
    (folder / "cat/0.png").write_bytes(bytes(state.st_size))
    os.utime(folder / "cat/0.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert told(elsewhere(*overrides))[0] == first.digest and len(list(here.glob("outputs/cache/*.npy"))) == 1
    paint(folder, "cat", 1, 500, size=30)
    (folder / "cat/500.png").rename(folder / "cat/0.png")
    assert splits_of(*overrides).digest != first.digest


def test_the_next_run_of_a_process_gets_what_is_there_already_unless_it_changed(folder, here):
    overrides = ("data=image_folder", f"data.root={folder}")
    first = splits_of(*overrides)
    assert splits_of(*overrides) is first
    assert splits_of(*overrides, seed=2).train.source is first.train.source
    paint(folder, "cat", 1, 500)
    again = splits_of(*overrides)
    assert [sum(map(len, (splits.train, splits.validation, splits.test))) for splits in (first, again)] == [30, 31]


@pytest.mark.parametrize("content", [b"", b"no array", slice(60), slice(-1)], ids=["empty", "strange", "header", "cut"])
def test_a_damaged_cache_is_made_anew(folder, here, content):
    overrides = ("data=image_folder", f"data.root={folder}")
    first = splits_of(*overrides)
    (cached,) = here.glob("outputs/cache/*.npy")
    whole = cached.read_bytes()
    cached.unlink()  # and no cut in place, under the feet of this process
    cached.write_bytes(content if isinstance(content, bytes) else whole[content])
    assert told(elsewhere(*overrides))[0] == first.digest
    assert cached.read_bytes() == whole and list(here.glob("outputs/cache/*.npy")) == [cached]


@pytest.mark.parametrize(
    ("cache", "before"),
    [
        ("taken/cache", "pass"),
        ("cache", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"),
    ],
    ids=["no folder", "full"],
)
def test_without_a_cache_the_pictures_stay_in_memory(folder, here, cache, before):
    (here / "taken").write_text("a file where a folder should be")
    overrides = ("data=image_folder", f"data.root={folder}")
    digest, said = told(elsewhere(*overrides, f"data.cache={cache}", before=before))
    assert digest == splits_of(*overrides).digest
    assert said.count("\n") == 1 and f"data.cache={cache}: cannot be written to" in said
    assert not [*here.glob("cache/*.npy"), *here.glob("cache/*.part")]


def test_processes_that_start_together_make_one_cache(folder, here):
    overrides = ("data=image_folder", f"data.root={folder}")
    answers = [told(process) for process in [elsewhere(*overrides) for _ in range(3)]]
    assert len({digest for digest, _ in answers}) == 1
    assert len(list(here.glob("outputs/cache/*.npy"))) == 1 and not list(here.glob("outputs/cache/*.part"))


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
    assert not list(here.glob("outputs/cache/*.npy"))


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


def test_own_pictures_are_read_again_when_they_change(tmp_path):
    paint(tmp_path, "tigers", 3, 0)
    overrides = ("data=digits", f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}]")
    first = splits_of(*overrides)
    assert splits_of(*overrides) is first
    paint(tmp_path, "tigers", 4, 0, size=30)
    again = splits_of(*overrides)
    assert len(again.train) == len(first.train) + 1
    assert not np.array_equal(again.train.pixels[-4], first.train.pixels[-3])


def test_an_extra_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"data\.extra: there is no file or folder"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/nowhere.png, label: new}}]")
    with pytest.raises(UserError, match="holds no pictures"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}, label: new}}]")
