"""The pixels of any picture that Pillow opens are those of Pillow's own steps."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments.config import UserError
from experiments.data.decoding import read_picture

SCENE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
GREY = SCENE[..., 0]


def saved(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def resized(image, size=32):
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def test_a_picture_of_the_right_size_is_not_touched(tmp_path):
    path = saved(tmp_path, Image.fromarray(SCENE[:32, :32]), "a.png")
    assert np.array_equal(read_picture(path, 32), SCENE[:32, :32].transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.gif", "a.jpg", "a.ppm"])
def test_formats(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(SCENE), name)
    assert np.array_equal(read_picture(path, 32), resized(Image.open(path)))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("P", "a.png"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.tif"),
        ("LAB", "a.tif"),
    ],
)
def test_modes(tmp_path, mode, name):
    image = Image.fromarray(SCENE)
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    path = saved(tmp_path, image if mode == "LAB" else image.convert(mode), name)
    assert np.array_equal(read_picture(path, 32), resized(Image.open(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(SCENE), "a.jpg", exif=exif)
    stored = Image.open(path).convert("RGB")
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [4], 7: [6], 8: [2]}  # Image.Transpose, by the EXIF standard
    for turn in turns.get(orientation, []):
        stored = stored.transpose(Image.Transpose(turn))
    assert np.array_equal(read_picture(path, 32), resized(stored))


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_transparent_parts_are_white(tmp_path, name):
    alpha = np.full((32, 32, 1), 0, dtype=np.uint8)
    alpha[:16] = 255
    picture = np.concatenate([SCENE[:32, :32], alpha], axis=2)
    pixels = read_picture(saved(tmp_path, Image.fromarray(picture), name, lossless=True), 32)
    assert (pixels[:, 16:] == 255).all()
    assert np.array_equal(pixels[:, :16], SCENE[:16, :32].transpose(2, 0, 1))


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(0, (0, 0, 32, 16))
    pixels = read_picture(saved(tmp_path, image, "a.gif", transparency=0), 32)
    assert (pixels[:, :16] == 255).all() and (pixels[0, 16:] == 200).all() and (pixels[1:, 16:] == 0).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, name):
    deep = (np.arange(32 * 32, dtype=np.uint32) * 65535 // 1023).astype(np.uint16).reshape(32, 32)
    pixels = read_picture(saved(tmp_path, Image.fromarray(deep), name), 32)
    assert np.array_equal(pixels, np.repeat((deep / 257).round().astype(np.uint8)[None], 3, axis=0))


@pytest.mark.parametrize(("value", "shown"), [(200, 200), (65535, 255)])
def test_the_scale_of_32_bit_grey_follows_from_its_values(tmp_path, value, shown):
    path = saved(tmp_path, Image.fromarray(np.full((32, 32), value, dtype=np.int32)), "a.tif")
    assert (read_picture(path, 32) == shown).all()


def test_float_grey_counts_to_one(tmp_path):
    ramp = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    pixels = read_picture(saved(tmp_path, Image.fromarray(ramp), "a.tif"), 32)
    assert np.array_equal(pixels[0], (ramp.astype(float) * 255).round().astype(np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000)])
def test_extreme_shapes(tmp_path, size):
    path = saved(tmp_path, Image.new("RGB", size, (10, 200, 30)), "a.png")
    assert (read_picture(path, 32) == np.array([10, 200, 30])[:, None, None]).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(path, 32)[0] == 255).all()


def test_an_open_file_serves_as_a_path(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(SCENE).save(buffer, "png")
    buffer.seek(0)
    assert np.array_equal(read_picture(buffer, 32), resized(Image.fromarray(SCENE)))


def truncated(path):
    Image.fromarray(SCENE).save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:900])


def bomb(path):
    Image.new("1", (30_000, 30_000)).save(path, "png")


@pytest.mark.parametrize(
    "make",
    [
        truncated,
        bomb,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a picture"),
        lambda path: None,
    ],
    ids=["truncated", "bomb", "empty", "text", "absent"],
)
def test_a_file_that_is_not_a_picture_is_named(tmp_path, make):
    path = tmp_path / "bad.jpg"
    make(path)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_picture(path, 32)
