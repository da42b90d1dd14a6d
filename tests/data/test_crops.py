"""Random resized crops: cut from the photographs, the same with any number of threads, and in any way of reading."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.config import UserError
from experiments.config.loading import check_overrides, compose_config
from experiments.data import load_splits
from experiments.data.augmentation import examples
from experiments.data.batches import Batches
from experiments.data.crops import RandomCrops, region
from experiments.data.decoding import open_picture
from experiments.data.images import Images
from experiments.data.membership import Membership
from experiments.data.squares import read_picture
from experiments.training.learner import training_batches
from samples import photograph, photographs, splits_of

CPU = torch.device("cpu")
CROPS = ("augment.crop_scale=[0.35,1]",)
FLY = ("data.map_limit=0",)
WAYS = pytest.mark.parametrize("way", [(), FLY], ids=["map", "fly"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def overrides(folder):
    read = photographs(folder / "pictures", {"cat": 20, "dog": 25})
    return (*read, f"data.cache={folder}/cache")


def batches_of(overrides, *more, batch=7):
    config = compose_config([*overrides, *CROPS, f"training.batch_size={batch}", *more])
    return training_batches(config, load_splits(config.data).train, CPU)


def one_pass(batches, seed=0):
    torch.manual_seed(seed)
    return [*batches]


def same(passes, others):
    return all(
        torch.equal(part, other)
        for batch, twin in zip(passes, others, strict=True)
        for part, other in zip(batch, twin, strict=True)
    )


@WAYS
def test_the_number_of_threads_changes_nothing(overrides, way):
    first, *others = (one_pass(batches_of(overrides, *way, f"data.workers={workers}")) for workers in (0, 1, 4))
    assert all(same(first, other) for other in others)
    assert first[0].pixels.shape == (7, 3, 48, 48) and not same(first, one_pass(batches_of(overrides, *way), seed=1))


@WAYS
def test_a_pass_can_start_at_any_step(overrides, way):
    batches = batches_of(overrides, *way)
    whole = one_pass(batches)
    after = torch.rand(1)
    for step in (0, 1, 3, len(batches)):
        torch.manual_seed(0)
        assert same(whole[step:], list(batches.from_step(step)))
        assert torch.rand(1) == after


@WAYS
def test_threads_end_with_the_loop(overrides, way):
    for _ in batches_of(overrides, *way, "data.workers=3"):
        assert any(thread.name.startswith("prefetch") for thread in threading.enumerate())
        break
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


@WAYS
def test_crops_are_those_of_pillow(overrides, way, folder):
    batches = batches_of(overrides, *way)
    crops, images = batches.crops, batches.images
    draws = crops.draw(10)
    for place in range(10):
        index = int(images.indices[place])
        picture = open_picture(folder / "pictures" / images.name(place))
        height, width = crops.copies.picture(index).shape[:2] if crops.copies else picture.size[::-1]
        left, top, wide, high, *_ = region(draws[place].tolist(), crops.scale, crops.ratio, 48, width, height)
        factor = picture.width / width
        box = [factor * corner for corner in (left, top, left + wide, top + high)]
        expected = picture.resize((48, 48), Image.Resampling.BILINEAR, tuple(np.minimum(box, picture.size * 2)))
        pixels = crops.cut(index, draws[place]).transpose(1, 2, 0)
        assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).mean() < 2


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (200, 200), (2000, 100), (1, 1), (1, 50)])
def test_crops_have_the_chosen_areas_and_shapes(size):
    width, height = size
    drawn = np.random.default_rng(0).random((500, 4)).tolist() + [
        list(ends) for ends in itertools.product((0.0, 0.9999999), repeat=4)
    ]
    for draw in drawn:
        left, top, wide, high, across, down = region(draw, (0.35, 1), (3 / 4, 4 / 3), 224, width, height)
        assert (
            0 <= left <= left + wide <= width
            and 0 <= top <= top + high <= height
            and wide * high
            and across == down == 224
        )
        if width / height in (4 / 3, 3 / 4, 1):
            assert 0.34 <= wide * high / (width * height) <= 1 or max(size) < 100
            assert 0.74 <= wide / high <= 1.35 or max(size) < 100


@WAYS
def test_a_padded_crop_has_the_shape_and_the_bars_of_its_photograph(tmp_path, way):
    read = (*photographs(tmp_path / "set", {"a": 8, "b": 8}), f"data.cache={tmp_path}/cache", "data.fit=pad", *way)
    batches = batches_of(read, "augment.crop_ratio=[1,1]")
    crops, images = batches.crops, batches.images
    for place, draw in enumerate(crops.draw(len(images))):
        index = int(images.indices[place])
        crop, whole = (pixels.any(axis=0) for pixels in (crops.cut(index, draw), images.image(place)))
        for axis in (0, 1):
            assert abs(crop.any(axis=axis).sum() - whole.any(axis=axis).sum()) <= 2
        full = crops.cut(index, np.array([0.999999, 0.5, 0, 0], dtype=np.float32))
        assert np.abs(full.astype(int) - images.image(place).astype(int)).mean() < 6


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (160, 90), (2000, 100), (1, 50)])
def test_the_ratio_of_a_padded_crop_is_relative_to_the_photograph(size):
    width, height = size
    for draw in np.random.default_rng(0).random((300, 4)).tolist():
        left, top, wide, high, across, down = region(draw, (0.35, 1), (3 / 4, 4 / 3), 224, width, height, padded=True)
        assert 0 <= left <= left + wide <= width and 0 <= top <= top + high <= height
        assert (across, down) == tuple(max(1, round(224 * side / max(wide, high))) for side in (wide, high))
        if min(size) > 80:
            assert 0.34 <= wide * high / (width * height) <= 1
            assert 0.74 <= (wide / high) / (width / height) <= 1.35


def test_areas_and_ratios_are_uniform():
    draws = np.random.default_rng(0).random((4000, 4)).tolist()
    boxes = [region(draw, (0.2, 0.5), (3 / 4, 4 / 3), 224, 1000, 1000) for draw in draws]
    areas = np.array([box.width * box.height / 1e6 for box in boxes])
    shapes = np.array([math.log(box.width / box.height) / math.log(4 / 3) for box in boxes])
    assert abs(np.quantile(areas, [0.25, 0.5, 0.75]) - [0.275, 0.35, 0.425]).max() < 0.02
    assert abs(np.quantile(shapes, [0.25, 0.5, 0.75]) - [-0.5, 0, 0.5]).max() < 0.06
    places = np.array([(box.left / (1000 - box.width), box.top / (1000 - box.height)) for box in boxes])
    assert abs(places.mean(axis=0) - 0.5).max() < 0.02


def test_images_without_files_are_cut_themselves():
    config = compose_config(["data=digits", "augment.crop_scale=[0.5,0.5]", "augment.crop_ratio=[1,1]"])
    images = load_splits(config.data).train
    batch = next(iter(training_batches(config, images, CPU)))
    assert batch.pixels.shape[1:] == (3, 32, 32)
    assert not torch.equal(batch.pixels, torch.from_numpy(images.take(batch.indices.numpy())))
    whole = RandomCrops(images, (1, 1), (1, 1))
    assert np.array_equal(whole.cut(5, whole.draw(1)[0]), images.source.image(5))


def test_the_examples_of_a_report_show_crops(overrides):
    config = compose_config([*overrides, *CROPS])
    images = load_splits(config.data).train
    before = torch.get_rng_state()
    original, *epochs = examples(config.augment, images, count=4)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(original, images.take(np.linspace(0, len(images) - 1, 4).astype(int)))
    assert len({epoch.tobytes() for epoch in (original, *epochs)}) == 4


def test_without_crops_nothing_is_drawn_for_them(overrides):
    config = compose_config([*overrides, "training.batch_size=7"])
    images = load_splits(config.data).train
    torch.manual_seed(0)
    list(training_batches(config, images, CPU))
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.randperm(len(images))
    assert torch.rand(1) == after


def parts_of(overrides, *more):
    return load_splits(compose_config([*overrides, *more]).data)


def test_images_on_the_fly_are_those_decoded_once(overrides):
    once, fly = parts_of(overrides), parts_of(overrides, *FLY)
    for name, part in once.parts().items():
        other = fly.parts()[name]
        assert np.array_equal(part.pixels, other.pixels) and part.names == other.names
        assert np.array_equal(part.image(1), other.image(1)) and part.shape == other.shape
        assert np.array_equal(np.concatenate(list(part.chunks())), np.concatenate(list(other.chunks())))
        assert np.array_equal(part.pixel_hashes(), other.pixel_hashes())
        ours, theirs = ([*Batches(images, 8, CPU)] for images in (part, other))
        assert same(ours, theirs)
    assert once.digest != fly.digest  # random crops are cut from different pixels
    assert Membership.of(once) == Membership.of(fly)


@WAYS
def test_the_digest_depends_on_everything_that_decides_the_pixels(folder, overrides, way):
    base = parts_of(overrides, *way).digest
    assert parts_of(overrides, *way, "data.cache=" + str(folder / "other")).digest == base
    assert parts_of(overrides, *way, "data.fit=pad").digest != base
    assert parts_of(overrides, *way, "data.image_size=40").digest != base


@WAYS
def test_a_change_beyond_the_middle_changes_the_digest(tmp_path, way):
    read = (*photographs(tmp_path / "set", {"a": 6, "b": 6}), f"data.cache={tmp_path}/cache")
    before = parts_of(read, *way)
    for path in sorted((tmp_path / "set/a").iterdir()):
        picture = np.asarray(Image.open(path)).copy()
        picture[:2], picture[:, :2] = 0, 0
        Image.fromarray(picture).save(path, quality=92)
    assert parts_of(read, *way).digest != before.digest


@WAYS
def test_broken_photographs_are_listed_all_at_once(tmp_path, way):
    read = (*photographs(tmp_path / "set", {"a": 6, "b": 6}), f"data.cache={tmp_path}/cache")
    whole = (tmp_path / "set/a/0.jpg").read_bytes()
    (tmp_path / "set/a/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "set/b/empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 pictures cannot be read:\n.*a/cut\.jpg.*\n.*b/empty\.jpg: is empty"):
        parts_of(read, *way)


@WAYS
def test_extra_photographs_and_copies(tmp_path, way, caplog):
    read = (*photographs(tmp_path / "set", {"a": 9, "b": 9}), f"data.cache={tmp_path}/cache")
    (tmp_path / "set/b/copy.jpg").write_bytes((tmp_path / "set/a/0.jpg").read_bytes())
    photographs(tmp_path / "more", {"tiger": 2})
    extra = f"data.extra=[{{path: {tmp_path}/more/tiger, label: tiger}}]"
    splits = parts_of(read, *way, extra)
    assert splits.train.names[-2:] == [f"{tmp_path}/more/tiger/{number}.jpg" for number in (0, 1)]
    for place in (0, len(splits.train) - 1):
        name = tmp_path / "set" / splits.train.name(place)
        assert np.array_equal(splits.train.image(place), read_picture(name, 48, "crop"))
    batches = batches_of(read, *way, extra, batch=len(splits.train))
    (batch,) = one_pass(batches)
    crops, tiger = batches.crops, int(splits.train.indices[-1])
    expected = photograph(1, 100, 75)
    assert batch.pixels.shape[0] == len(splits.train)
    draw = np.array([0.999999, 0.5, 0, 0], dtype=np.float32)
    assert np.abs(crops.cut(tiger, draw).mean((1, 2)) - np.asarray(expected).mean((0, 1))).max() < 12
    again = f"data.extra=[{{path: {tmp_path}/set/{splits.test.name(0)}, label: a}}]"
    with pytest.raises(UserError, match="also in the validation or test set"):
        parts_of(read, *way, again)


def test_the_original_of_an_image_keeps_its_shape(overrides, folder):
    images = parts_of(overrides).train
    names = [name for name in images.names if int(name.split("/")[1][:-4]) % 3 == 0]
    upright = images.original(images.names.index(names[0]), 64)
    assert upright.shape == (64, 48, 3)
    digits = splits_of("data=digits").test
    assert np.array_equal(digits.original(3, 512), digits.image(3).transpose(1, 2, 0))


def test_squash_is_what_it_was(overrides, folder):
    splits = parts_of(overrides, "data.fit=squash")
    for images in splits.parts().values():
        assert np.array_equal(images.image(0), read_picture(folder / "pictures" / images.name(0), 48))
    fly = parts_of(overrides, "data.fit=squash", *FLY)
    assert np.array_equal(fly.test.pixels, splits.test.pixels)


def test_one_line_says_that_pictures_are_decoded_on_the_fly(tmp_path, caplog):
    read = photographs(tmp_path / "set", {"a": 6, "b": 6})
    parts_of(read, f"data.cache={tmp_path}/cache", "data.map_limit=1000")
    assert "decoded on the fly: 0.0 GB of images are more than data.map_limit=1000" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.crop_scale=[1,0.35]"], r"augment\.crop_scale=\[1.0, 0.35\]: must be the least, then the greatest"),
        (
            ["augment.crop_scale=[0.3,1]", "augment.crop_ratio=[2,1]"],
            r"augment\.crop_ratio=\[2.0, 1.0\]: must be the least",
        ),
        (["augment.crop_scale=[0,1]"], r"augment\.crop_scale\[0\]=0: must be a number above 0 and at most 1"),
        (["augment.crop_scale=0.5"], r"augment\.crop_scale=0.5: must be a list of 2"),
        (["augment.crop_scale=[0.5]"], r"augment\.crop_scale=\[0.5\]: must be a list of 2"),
        (["augment.crop_scale=[0.3,1]", "augment.crop=0.2"], r"augment\.crop=0.2: must be 0 with augment\.crop_scale"),
        (["data=image_folder", "data.root=.", "augment.crop_scale=[0.3,1]"], r"needs data\.fit=crop or data\.fit=pad"),
        (["data.fit=stretch"], r"data\.fit=stretch: must be one of squash, crop, pad"),
        (["data.workers=-1"], r"data\.workers=-1: must be a whole number from 0 to 1,024 or null"),
        (["data.map_limit=-1"], r"data\.map_limit=-1: must be a whole number of at least 0"),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(UserError, match=message):
        check_overrides(overrides, multirun=False)


def test_parts_of_arrays_are_photographs_without_files():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 20, 20), dtype=np.uint8)
    images = Images(pixels, np.zeros(3, dtype=np.int64), ("a",))
    crops = RandomCrops(images, (0.5, 1), (1, 1))
    assert crops.cut(2, crops.draw(1)[0]).shape == (3, 20, 20)
