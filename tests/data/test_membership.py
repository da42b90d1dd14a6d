"""The pictures of a run's splits are kept in a small file, and found again by their pixels."""

import numpy as np
import pytest

from experiments.data import Images, Splits
from experiments.data.membership import Membership
from samples import paint, splits_of

NAMES = ["a,b.png", 'ü"\n.png', "\udce9.png", "cat/train[1].png", "e", "f"]


def images(pixels, names):
    return Images(pixels, np.arange(len(pixels)) % 2, ("cat", "犬"), names=names)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)


@pytest.fixture
def membership(pixels):
    return Membership.of(Splits(*(images(pixels[i : i + 2], NAMES[i : i + 2]) for i in (0, 2, 4))))


def test_what_is_written_is_read(membership, tmp_path):
    for name in ("a", "b"):
        membership.write(tmp_path / name)
    assert Membership.read(tmp_path / "a") == membership
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [picture.split for picture in membership.pictures] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_sixty_thousand_pictures_take_less_than_two_megabytes(tmp_path):
    many = np.random.default_rng(0).integers(0, 256, (60_000, 3, 2, 2), dtype=np.uint8)
    all_images = Images(many, np.arange(len(many)) % 10, tuple(f"class {number}" for number in range(10)))
    Membership.of(Splits(all_images[:40_000], all_images[40_000:50_000], all_images[50_000:])).write(tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 2e6


def test_of_copies_those_with_the_same_names_are_meant_and_no_more_than_there_were(pixels, membership):
    today = images(pixels[[5, 5, 0, 0]], ["copy", "f", "copy 0", "copy 1"])
    found = membership.matched(today)
    assert [picture and (picture.name, picture.split) for picture in found] == [
        None, ("f", "test"), ("a,b.png", "train"), None,
    ]  # fmt: skip
    assert membership.in_split(today, "train").tolist() == [False, False, True, True]


def test_extra_pictures_are_among_those_of_the_training_set(tmp_path, here):
    for name in ("cat", "dog"):
        paint(tmp_path / "pics", name, 10, ord(name[0]))
    paint(tmp_path, "more", 2, 700)
    splits = splits_of("data=image_folder", "data.root=pics", f"data.extra=[{{path: {tmp_path}/more, label: owl}}]")
    owls = [picture for picture in Membership.of(splits).pictures if picture.label == "owl"]
    assert [(owl.name, owl.split) for owl in owls] == [
        (f"{tmp_path}/more/{number}.png", "train") for number in (700, 701)
    ]
