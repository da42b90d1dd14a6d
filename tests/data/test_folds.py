"""Folds: each image is in one, classes are spread evenly, groups stay together."""

import logging

import numpy as np
import pytest

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import Images, splitting
from samples import paint, splits_of

CLASSES = ("ant", "bee", "cow")


def images(labels, groups=None):
    labels = np.asarray(labels, dtype=np.int64)
    groups = None if groups is None else np.asarray(groups, dtype=np.int64)
    return Images(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, CLASSES, groups=groups)


@pytest.mark.parametrize("grouped", [False, True])
def test_each_image_is_held_out_once_and_classes_are_even(grouped):
    labels = np.repeat([0, 1, 2], [60, 30, 15])
    data = images(labels, np.arange(105) // 3 if grouped else None)
    parts = [splitting.fold(data, 5, number, 1) for number in range(5)]
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(105))
    for kept, held_out in parts:
        assert sorted([*kept, *held_out]) == list(range(105))
        assert np.bincount(labels[held_out]).tolist() == [12, 6, 3]
        if grouped:
            assert not set(data.groups[kept]) & set(data.groups[held_out])


def test_folds_follow_the_seed():
    data = images(np.arange(60) % 3)
    first, same, other = (splitting.fold(data, 5, 0, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == same != other


def test_the_test_set_stays_as_it_is():
    plain = splits_of("data=digits")
    folds = [splits_of("data=digits", "data.folds=5", f"data.fold={fold}") for fold in range(5)]
    assert all(np.array_equal(each.test.indices, plain.test.indices) for each in folds)
    held_out = np.concatenate([each.validation.indices for each in folds])
    assert sorted(held_out) == list(range(1500))
    assert all(len(each.train) + len(each.validation) == 1500 for each in folds)
    assert len({each.digest for each in folds}) == 5


def test_a_folder_has_folds_beside_its_test_set(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}", "data.folds=4")
    folds = [splits_of(*overrides, f"data.fold={fold}") for fold in range(4)]
    assert len({frozenset(each.test.names) for each in folds}) == 1
    assert [each.validation.class_counts.tolist() for each in folds] == [[2, 4]] * 4


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (
            [0] * 10 + [1] * 3,
            None,
            r"^data\.folds=5: .*too few images are there of bee \(3\); set data\.folds to at most 3",
        ),
        ([0] * 10 + [1], None, r"bee \(1\); add images$"),
        ([0] * 10 + [1] * 5, [*range(10), *[10] * 5], "all images that are left of bee are in one group"),
        ([0, 1] * 10, [0] * 8 + [1] * 12, r"data\.folds=5: there are only 2 groups"),
    ],
)
def test_too_few_images_for_the_folds(labels, groups, message):
    with pytest.raises(UserError, match=message):
        splitting.fold(images(labels, groups), 5, 0, 1)


def test_a_class_with_few_groups_is_mentioned(caplog):
    data = images([0] * 20 + [1] * 6, [*range(20), *[20] * 3, *[21] * 3])
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            assert (np.bincount(data.labels[splitting.fold(data, 4, number, 1)[0]], minlength=2) > 0).all()
    assert "no validation image of bee" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.folds=5"], r"data\.folds=5: needs data\.fold, 0 to 4; .*-m data\.fold=0,1,2,3,4"),
        (["data.fold=1"], r"data\.fold=1: needs data\.folds"),
        (["data.folds=5", "data.fold=5"], r"data\.fold=5: must be from 0 to 4, because data\.folds=5"),
        (["data.folds=1", "data.fold=0"], r"data\.folds=1: must be a whole number from 2"),
    ],
)
def test_the_keys_belong_together(overrides, message):
    with pytest.raises(UserError, match=message):
        compose_config(["data=digits", *overrides])


def test_a_validation_set_of_its_own_leaves_nothing_to_divide(tmp_path, here):
    for start, part in enumerate(("train", "val", "test")):
        for label, name in enumerate("ab"):
            paint(tmp_path / "set" / part, name, 3, 100 * start + 10 * label, size=4)
    with pytest.raises(UserError, match=r"data\.folds=2: the data has a validation set of its own"):
        splits_of("data=image_folder", f"data.root={tmp_path}/set", "data.folds=2", "data.fold=0")


# groups in a single split


@pytest.mark.parametrize("how", ["random", "stratified"])
@pytest.mark.parametrize("seed", range(10))
def test_held_out_groups_have_the_size_and_the_classes_that_were_asked_for(how, seed):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 60, 600))
    labels = rng.integers(0, 3, 60)[groups]  # a group is of one class
    kept, held_out = splitting.split(images(labels, groups), 0.2, how, seed, "key")
    assert sorted([*kept, *held_out]) == list(range(600)) and not set(groups[kept]) & set(groups[held_out])
    assert len(held_out) == pytest.approx(120, abs=12)
    if how == "stratified":
        fractions = np.bincount(labels[held_out], minlength=3) / np.bincount(labels, minlength=3)
        assert fractions == pytest.approx(0.2, abs=0.06)


def test_a_class_of_two_large_groups_is_in_both_parts():
    labels = np.repeat([0, 1], [80, 20])
    data = images(labels, [*(np.arange(80) // 4), *([20] * 11 + [21] * 9)])
    for seed in range(10):
        held_out = splitting.split(data, 0.2, "stratified", seed, "key")[1]
        assert np.bincount(labels[held_out]).tolist() == [16, 9]


def test_groups_are_drawn_by_the_seed():
    data = images(np.arange(90) % 3, np.arange(90) // 3)
    first, same, other = (splitting.split(data, 0.3, "stratified", seed, "key")[1].tolist() for seed in (1, 1, 2))
    assert first == same != other


def test_groups_of_one_image_split_as_without_groups():
    labels = np.arange(90) % 3
    for how in ("first", "random", "stratified"):
        alone, plain = (splitting.split(images(labels, g), 30, how, 1, "key")[1] for g in (np.arange(90), None))
        assert np.array_equal(alone, plain)


@pytest.mark.parametrize(
    ("groups", "how", "message"),
    [
        ([0, 0, 1, 1, 2, 2, 3, 3], "first", r"data\.split=first: would divide groups"),
        ([0] * 8, "random", "all images are in one group"),
        ([0, 0, 0, 0, 1, 1, 2, 2], "stratified", "all images that are left of ant are in one group"),
        ([0, 0, 1, 2, 0, 1, 1, 2], "stratified", None),
    ],
)
def test_groups_that_cannot_be_divided(groups, how, message):
    data = images([0, 0, 0, 0, 1, 1, 1, 1], groups)
    if message is None:
        kept, held_out = splitting.split(data, 2, how, 1, "key")
        assert len(kept) and len(held_out)
        return
    with pytest.raises(UserError, match=message):
        splitting.split(data, 4, how, 1, "key")
