"""Images: parts that share their pixels, and digests of them."""

import os
import warnings

import numpy as np
import pytest
import torch

from experiments.data.batches import Batches
from experiments.data.images import Images, joined
from experiments.data.splitting import split
from experiments.data.squares import read_picture
from samples import digest_of, paint, splits_of


def test_the_digest_changes_with_any_pixel_label_or_position():
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


def test_the_digest_is_that_of_the_arrays(picture_folder, here):
    splits = splits_of("data=digits")
    parts = splits.parts().values()
    assert splits.digest == digest_of(*((part.pixels, part.labels, tuple("0123456789")) for part in parts))

    pixels = np.stack(
        [read_picture(file, 16) for name in ("cat", "dog") for file in sorted((picture_folder / name).iterdir())]
    )
    labels = np.repeat([0, 1], [10, 20])
    images = Images(pixels, labels, ("cat", "dog"))
    kept, test = split(images, 0.2, "stratified", 1, "key")
    train, validation = split(images[kept], 0.2, "stratified", 1, "key")
    expected = digest_of(
        *((pixels[part], labels[part], ("cat", "dog")) for part in (kept[train], kept[validation], test))
    )
    assert splits_of("data=image_folder", f"data.root={picture_folder}", "data.image_size=16").digest == expected


def noise(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return pixels, Images(pixels, np.arange(count) % 3, ("a", "b", "c"))


def test_parts_of_parts_share_the_pixels():
    pixels, images = noise(20)
    some = images[np.array([7, 3, 11, 3])][1:][[2, 0]]
    assert some.source is images.source and some.indices.tolist() == [3, 3] and some.shape == (2, 3, 8, 8)
    assert np.array_equal(some.pixels, pixels[[3, 3]]) and some.labels.tolist() == [0, 0]
    assert np.array_equal(images[5:9].image(2), pixels[7]) and len(images[[]].pixels) == 0
    assert images[4:9].digest == Images(pixels[4:9], images.labels[4:9], images.classes).digest


def test_parts_are_joined_without_a_copy_if_possible():
    pixels, images = noise(20)
    others, strange = noise(5, seed=1)
    both = joined([images[:3], images[10:12]])
    assert both.source is images.source and np.array_equal(both.pixels, pixels[[0, 1, 2, 10, 11]])
    assert np.array_equal(joined([images[:3], strange]).pixels, np.concatenate([pixels[:3], others]))


def test_every_picture_has_the_name_of_its_file(picture_folder, here, monkeypatch):
    monkeypatch.chdir(picture_folder.parent)
    paint(picture_folder / "cat", "more", 1, 900)
    files = sorted(file.relative_to(picture_folder).as_posix() for file in picture_folder.rglob("*.png"))
    for root in (picture_folder, "pictures", "./pictures/", "pictures/../pictures"):
        splits = splits_of("data=image_folder", f"data.root={root}")
        assert sorted(name for part in splits.parts().values() for name in part.names) == files
        for part in splits.parts().values():
            for index, name in enumerate(part.names):
                assert part.name(index) == name and part.classes[part.labels[index]] == name.split("/")[0]
                assert np.array_equal(part.image(index), read_picture(picture_folder / name, 32))
    some = splits.train[[3, 1]]
    assert some.names == [splits.train.name(3), splits.train.name(1)]


def test_names_follow_images_into_a_joined_copy(tmp_path):
    paint(tmp_path, "tigers", 2, 0)
    extra = f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}]"
    before, after = splits_of("data=digits"), splits_of("data=digits", extra)
    assert after.train.names == [*before.train.names, f"{tmp_path}/tigers/0.png", f"{tmp_path}/tigers/1.png"]
    assert before.test.names[:2] == ["test[0]", "test[1]"] and before.test.names == after.test.names
    places = np.concatenate([before.train.indices, before.validation.indices])
    assert [*before.train.names, *before.validation.names] == [f"train[{place}]" for place in places]


def test_images_without_names_are_named_by_their_indices():
    pixels, images = noise(4)
    assert images[[2, 0]].names == ["image[2]", "image[0]"]
    named = Images(pixels, images.labels, images.classes, names=("w", "x", "y", "z"))
    assert joined([named[[3]], images[[0]]]).names == ["z", "image[0]"] and named.digest == images.digest


def test_a_file_name_that_is_not_utf8_can_be_written(picture_folder, here):
    (picture_folder / "cat/0.png").rename(os.fsdecode(bytes(picture_folder / "cat") + b"/caf\xe9.png"))
    splits = splits_of("data=image_folder", f"data.root={picture_folder}")
    names = [name for part in splits.parts().values() for name in part.names]
    assert "cat/caf\\xe9.png" in names and all(name.encode() for name in names)


def test_what_runs_share_cannot_be_written_to():
    splits = splits_of("data=digits")
    for array in (splits.train.source.array, splits.train.labels, splits.train.indices, splits.train.image(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    splits.train.pixels[:] = 0  # a copy
    assert splits.train.pixels.any()


@pytest.mark.parametrize("order", ["as_is", "shuffle", "balanced"])
def test_batches_have_the_images_of_their_labels(picture_folder, here, order):
    images = splits_of("data=image_folder", f"data.root={picture_folder}").train
    known = dict(zip(images.pixel_hashes().tolist(), images.labels.tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(Batches(images, 4, torch.device("cpu"), order))
    pixels, labels, _ = (torch.cat(part).numpy() for part in zip(*batches))
    found = Images(pixels, labels, images.classes)
    assert [known[mark] for mark in found.pixel_hashes().tolist()] == labels.tolist()
    assert order != "as_is" or found.digest == images.digest
