"""The pixels of any picture that Pillow opens are those of Pillow's own steps."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL import __version__ as pillow

from experiments.config import UserError
from experiments.data.decoding import is_picture
from experiments.data.squares import read_picture

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
        pytest.param(
            *("YCbCr", "a.tif"),
            marks=pytest.mark.skipif(int(pillow.split(".")[0]) < 13, reason="this Pillow cannot read what it writes"),
        ),
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


@pytest.mark.parametrize("bits", [12, 16])
def test_a_tiff_file_says_its_bit_depth(tmp_path, bits):
    deep = np.random.default_rng(1).integers(0, 2**bits, (32, 32), dtype=np.uint16)
    deep[0, 0] = 2**bits - 1
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 2**bits - 1  # MaxSampleValue
    pixels = read_picture(saved(tmp_path, Image.fromarray(deep), "a.tif", tiffinfo=tags), 32)
    assert np.array_equal(pixels[0], (deep / (2**bits - 1) * 255).round().astype(np.uint8))


def test_a_dark_pgm_file_stays_dark(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 32 32 4095\n" + np.full(1024, 16, ">u2").tobytes())
    assert (read_picture(tmp_path / "a.pgm", 32) == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    values = np.full((32, 32), 0.5, dtype=np.float32)
    values[3, 4] = value
    with pytest.raises(UserError, match=r"a\.tif: .*not finite"):
        read_picture(saved(tmp_path, Image.fromarray(values), "a.tif"), 32)


def test_one_value_above_one_does_not_turn_a_picture_black(tmp_path):
    ramp = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    ramp[5, 5] = 1.02
    pixels = read_picture(saved(tmp_path, Image.fromarray(ramp), "a.tif"), 32)
    assert np.array_equal(pixels[0], (ramp.astype(float) * 255).round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("most", [200, 60_000])
def test_float_grey_above_one_has_the_scale_of_8_or_16_bits(tmp_path, most):
    ramp = np.linspace(0, most, 1024, dtype=np.float32).reshape(32, 32)
    pixels = read_picture(saved(tmp_path, Image.fromarray(ramp), "a.tif"), 32)
    white = 255 if most == 200 else 65535
    assert np.array_equal(pixels[0], (ramp.astype(float) / white * 255).round().astype(np.uint8))


def exif():
    found = Image.Exif()
    found[0x0112], found[0x010F], found[0x011A] = 6, "Maker", 72.0
    return found


@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated|Tag data")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_no_changed_byte_of_the_exif_data_breaks_a_picture(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, Image.fromarray(SCENE[:16, :16]), name, exif=exif(), **options)
    whole, content = path.read_bytes(), exif().tobytes().removeprefix(b"Exif\0\0")
    start = whole.index(content)
    upright = {turned.tobytes() for turned in all_turns(Image.open(path).convert("RGB"))}
    for place in range(start, start + len(content)):
        for value in (0, 1, 255):
            damaged = bytearray(whole)
            damaged[place] = value
            assert read_picture(io.BytesIO(damaged), 16).transpose(1, 2, 0).tobytes() in upright, place


def all_turns(image):
    yield image
    for turn in Image.Transpose:
        yield image.transpose(turn)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_large_colour_profile_does_not_break_a_picture(tmp_path, name):
    profile = np.random.default_rng(0).bytes(2_000_000)
    plain = read_picture(saved(tmp_path, Image.fromarray(SCENE), name), 32)
    assert np.array_equal(read_picture(saved(tmp_path, Image.fromarray(SCENE), name, icc_profile=profile), 32), plain)


def test_a_broken_png_is_still_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(SCENE), "a.png")
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"IDAT") + 500] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.png"):
        read_picture(path, 32)


def test_only_named_formats_are_opened(tmp_path, monkeypatch):
    called = tmp_path / "called"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    path = saved(tmp_path, Image.fromarray(SCENE), "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: not a picture"):
        read_picture(path, 32)
    assert not called.exists()


def test_endings_of_other_formats_are_no_pictures():
    assert not [
        name for name in ("a.eps", "a.h5", "a.grib", "a.mpg", "a.wmf", "a.bufr", "jpg", "a") if is_picture(name)
    ]
    assert all(
        map(
            is_picture, ("a.jpg", "b/c.JPEG", "a.png", "a.tif", "a.webp", "a.bmp", "a.gif", "a.jfif", "a.avif", "a.jp2")
        )
    )


HEIC = """
import sys
if not {installed}:
    sys.modules["pillow_heif"] = None
from pathlib import Path
from experiments.data.decoding import is_picture
from experiments.data.squares import read_picture
print(is_picture("IMG_1.HEIC"))
print(read_picture(Path("a.heic"), 32).mean(axis=(1, 2)).round())
"""


def test_heic_needs_an_extra(tmp_path):
    """In processes of their own: the extra changes the formats that Pillow opens."""
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48), (10, 200, 30))).save(tmp_path / "a.heic")

    def outcome(installed):
        script = HEIC.format(installed=installed)
        return subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    read, missing = outcome(installed=True), outcome(installed=False)
    assert read.returncode == 0 and read.stdout.startswith("True"), read.stderr
    assert np.abs(np.array(read.stdout.split("[")[1].rstrip("]\n").split(), dtype=float) - (10, 200, 30)).max() <= 3
    assert missing.stdout == "False\n"
    assert re.search(r"a\.heic: .*pip install -e '\.\[heif\]'", missing.stderr), missing.stderr


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
    ("make", "reason"),
    [
        (truncated, "the picture is broken"),
        (bomb, "Image size"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("not a picture"), "not a picture in a format that is read"),
        (lambda path: None, "there is no such file"),
    ],
    ids=["truncated", "bomb", "empty", "text", "absent"],
)
def test_a_file_that_is_not_a_picture_is_named(tmp_path, make, reason):
    path = tmp_path / "bad.jpg"
    make(path)
    with pytest.raises(UserError, match=re.escape(f"{path}: {reason}")):
        read_picture(path, 32)
