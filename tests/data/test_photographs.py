"""Photographs become squares as torchvision and Pillow make them, and every file is decoded, or refused, as before."""

import io

import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision.transforms import v2

from experiments.config import UserError
from experiments.data.decoding import open_picture
from experiments.data.squares import read_picture
from samples import photograph

SIZE = 48
OLD = tuple(map(int, torchvision.__version__.split(".")[:2])) < (0, 28)  # its libjpeg is older than Pillow's
GUESSED = 3 if OLD else 0  # levels by which both differ in missing parts of progressive files
MIDDLE = v2.Compose([v2.PILToTensor(), v2.Resize(55, antialias=True), v2.CenterCrop(SIZE)])  # 55 = 48 / 0.875


def saved(folder, picture, name="a.jpg", **options):
    picture.save(folder / name, **options)
    return folder / name


def difference(pixels, others):
    return np.abs(pixels.astype(int) - np.asarray(others).astype(int)).mean()


@pytest.mark.parametrize("size", [(100, 75), (75, 100), (60, 60), (20, 30), (48, 48), (103, 61)])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_crop_is_the_middle_of_the_resized_picture(tmp_path, size, name):
    path = saved(tmp_path, photograph(0, *size), name)
    expected = MIDDLE(Image.open(path).convert("RGB"))
    assert np.array_equal(read_picture(path, SIZE, "crop"), expected)


@pytest.mark.parametrize("size", [(400, 300), (301, 437), (1000, 750)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_large_jpeg_is_decoded_at_a_reduced_size_to_nearly_the_same_pixels(tmp_path, size, fit):
    path = saved(tmp_path, photograph(1, *size), quality=95)
    exact = read_picture(open_picture(path), SIZE, fit)
    assert difference(read_picture(path, SIZE, fit), exact) < 2


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [((100, 50), slice(12, 36), slice(0, 48)), ((50, 100), slice(0, 48), slice(12, 36))]
)
def test_pad_keeps_the_whole_picture(tmp_path, size, rows, columns):
    path = saved(tmp_path, photograph(2, *size), "a.png")
    pixels = read_picture(path, SIZE, "pad")
    small = open_picture(path).resize((columns.stop - columns.start, rows.stop - rows.start), Image.Resampling.BILINEAR)
    assert difference(pixels[:, rows, columns].transpose(1, 2, 0), small) < 0.6
    outside = np.ones((SIZE, SIZE), dtype=bool)
    outside[rows, columns] = False
    assert (pixels[:, outside] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (5_000, 10), (10, 5_000), (2, 300)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_extreme_shapes(tmp_path, size, fit):
    path = saved(tmp_path, Image.new("RGB", size, (10, 200, 30)), "a.png")
    pixels = read_picture(path, SIZE, fit)
    assert pixels.shape == (3, SIZE, SIZE)
    assert (pixels[:, SIZE // 2, SIZE // 2] == [10, 200, 30]).all()


@pytest.mark.parametrize("size", [(100, 75), (400, 304)])  # the second is decoded at a reduced size
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_says(tmp_path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, photograph(3, *size), exif=exif, quality=95)
    pixels, upright = read_picture(path, SIZE, "crop"), read_picture(open_picture(path), SIZE, "crop")
    assert np.array_equal(pixels, upright) if size[0] == 100 else difference(pixels, upright) < 2


def test_the_orientation_in_xmp_counts_too(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = saved(tmp_path, photograph(3, 100, 75), xmp=xmp)
    assert open_picture(path).size == (75, 100)
    assert np.array_equal(read_picture(path, SIZE, "crop"), read_picture(open_picture(path), SIZE, "crop"))


def test_a_file_an_open_file_and_a_picture_give_the_same_pixels(tmp_path):
    path = saved(tmp_path, photograph(4, 100, 75))
    pixels = read_picture(path, SIZE, "crop")
    assert np.array_equal(read_picture(io.BytesIO(path.read_bytes()), SIZE, "crop"), pixels)
    assert np.array_equal(read_picture(open_picture(path), SIZE, "crop"), pixels)


ODD = {
    "cmyk.jpg": lambda path: photograph(5, 80, 60).convert("CMYK").save(path),
    "grey.jpg": lambda path: photograph(5, 80, 60).convert("L").save(path),
    "progressive.jpg": lambda path: photograph(5, 80, 60).save(path, progressive=True),
    "rgb.jpg": lambda path: photograph(5, 80, 60).save(path, keep_rgb=True),
    "subsampled.jpg": lambda path: photograph(5, 81, 61).save(path, subsampling="4:2:0"),
    "deep.png": lambda path: Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13).save(path),
    "alpha.png": lambda path: photograph(5, 80, 60).convert("RGBA").rotate(30).save(path),
    "palette.gif": lambda path: photograph(5, 80, 60).save(path),
    "named_wrongly.jpg": lambda path: photograph(5, 80, 60).save(path, "png"),
    "picture.webp": lambda path: photograph(5, 80, 60).save(path, lossless=True),
}  # fmt: skip


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("name", ODD)
def test_files_of_all_kinds_are_decoded_as_by_pillow(tmp_path, name, fit):
    ODD[name](tmp_path / name)
    assert np.array_equal(
        read_picture(tmp_path / name, SIZE, fit), read_picture(open_picture(tmp_path / name), SIZE, fit)
    )


def outcome(function):
    try:
        return function()
    except UserError as error:
        return str(error).partition(" (")[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated|Tag data")
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_damaged_file_is_refused_exactly_if_pillow_refuses_it(tmp_path, options):
    """Cut off anywhere, or with any byte changed."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, photograph(6, 64, 50), exif=exif, quality=60, **options)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 23)]
    damaged += [whole[:-1], whole[:-2], whole[:-3], whole + b"more"]
    for place in range(0, len(whole), 11):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        expected = outcome(lambda: read_picture(open_picture(path), SIZE, "crop"))
        found = outcome(lambda: read_picture(path, SIZE, "crop"))
        assert type(found) is type(expected)
        assert found == expected if isinstance(found, str) else np.abs(found - expected.astype(int)).max() <= GUESSED


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg: there is no such file"):
        read_picture(tmp_path / "a.jpg", SIZE, "crop")
