"""Decoded arrays on disk: made once, made again when a file changes, and replaced when damaged."""

import io
import logging
import os

import numpy as np
import pytest
from PIL import Image

from experiments.files import cache
from samples import answer, load_elsewhere, splits_of


@pytest.mark.slow
def test_pictures_are_decoded_once(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first = splits_of(*overrides)
    (cached_file,) = here.glob("outputs/cache/*.npy")
    made = cached_file.stat().st_ino
    assert answer(load_elsewhere(*overrides))[0] == first.digest
    assert [file.stat().st_ino for file in here.glob("outputs/cache/*.npy")] == [made]


@pytest.mark.parametrize("how", ["written", "exchanged"])
def test_a_picture_of_the_same_size_and_time_is_decoded_again(tmp_path, here, how):
    for name in "ab":
        for number in range(5):
            (tmp_path / f"set/{name}").mkdir(parents=True, exist_ok=True)
            grey = Image.new("L", (8, 8), 10 * number + 100 * (name == "b"))
            grey.save(tmp_path / f"set/{name}/{number}.bmp")
    overrides = ("data=image_folder", f"data.root={tmp_path}/set")
    first = splits_of(*overrides)
    picture, other = tmp_path / "set/a/0.bmp", tmp_path / "other.bmp"
    state = picture.stat()
    Image.new("L", (8, 8), 255).save(other)
    assert other.stat().st_size == state.st_size
    if how == "written":
        picture.write_bytes(other.read_bytes())
    else:
        other.replace(picture)
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert splits_of(*overrides).digest != first.digest


@pytest.mark.slow
def test_another_version_of_the_decoder_decodes_again(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    splits_of(*overrides)
    answer(load_elsewhere(*overrides, before="import PIL.Image; PIL.__version__ = '99.0'"))
    assert len(list(here.glob("outputs/cache/*.npy"))) == 2


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


OTHER = npy(np.zeros((30, 4), dtype=np.float32))


@pytest.mark.parametrize(
    "content", [b"", b"no array", slice(60), slice(-1), OTHER], ids=["empty", "strange", "header", "cut", "other array"]
)
@pytest.mark.slow
def test_a_damaged_cache_is_replaced(picture_folder, here, content):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first = splits_of(*overrides)
    (cached,) = here.glob("outputs/cache/*.npy")
    whole = cached.read_bytes()
    cached.unlink()  # not cut in place, because this process has it mapped
    cached.write_bytes(content if isinstance(content, bytes) else whole[content])
    digest, said = answer(load_elsewhere(*overrides))
    assert digest == first.digest
    assert said.count("\n") == 1 and "are damaged and are made again" in said
    assert cached.read_bytes() == whole and list(here.glob("outputs/cache/*.npy")) == [cached]


@pytest.mark.parametrize(
    ("cache", "before"),
    [
        ("taken/cache", "pass"),
        ("cache", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"),
    ],
    ids=["no folder", "full"],
)
@pytest.mark.slow
def test_without_a_cache_the_images_stay_in_memory(picture_folder, here, cache, before):
    (here / "taken").write_text("a file where a folder should be")
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    digest, said = answer(load_elsewhere(*overrides, f"data.cache={cache}", before=before))
    assert digest == splits_of(*overrides).digest
    assert said.count("\n") == 1 and f"data.cache={cache}: cannot be written to" in said
    assert not [*here.glob("cache/*.npy"), *here.glob("cache/*.part")]


@pytest.mark.slow
def test_processes_that_start_together_make_one_cache(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    answers = [answer(process) for process in [load_elsewhere(*overrides) for _ in range(3)]]
    assert len({digest for digest, _ in answers}) == 1
    assert len(list(here.glob("outputs/cache/*.npy"))) == 1 and not list(here.glob("outputs/cache/*.part"))


@pytest.mark.parametrize("large", [False, True], ids=["verified when opened", "verified as it is read"])
def test_no_flipped_bit_is_believed(tmp_path, caplog, monkeypatch, large):
    if large:
        monkeypatch.setattr(cache, "LARGE", 1 << 20)
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (300, 3, 64, 64), dtype=np.uint8)  # 3.7 MB
    made = []

    def opened():
        (found,) = cache.cached(str(tmp_path), ("key",), ("pixels",), lambda: (made.append(1) or pixels,))
        return found

    opened()
    (file,) = tmp_path.glob("*.npy")
    whole = file.read_bytes()
    places = rng.integers(0, 8 * len(whole), 20)
    with caplog.at_level(logging.WARNING):
        for count, place in enumerate(places.tolist(), 1):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            file.unlink()  # not in place, because this process has it mapped
            file.write_bytes(damaged)
            found = opened()
            for start in range(0, len(pixels), 7):  # as a run reads it
                rows = np.arange(start, min(start + 7, len(pixels)))
                assert np.array_equal(found.verified(rows)[rows], pixels[rows])
            assert len(made) == count + 1 and len(caplog.messages) == count and file.read_bytes() == whole
    opened().verified(np.arange(300))
    assert len(made) == 21


def test_a_large_file_is_verified_as_far_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 1 << 20)
    pixels = np.random.default_rng(6).integers(0, 256, (300, 3, 64, 64), dtype=np.uint8)
    arguments = (str(tmp_path), ("key",), ("pixels",))
    cache.cached(*arguments, lambda: (pixels,))
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[2_000_000] ^= 1  # in image 162
    file.unlink()
    file.write_bytes(content)
    (found,) = cache.cached(*arguments, lambda: (pixels,))
    assert np.array_equal(found.verified(np.arange(80))[:80], pixels[:80]) and file.read_bytes() == content
    assert np.array_equal(found.verified(np.array([10, 162]))[[10, 162]], pixels[[10, 162]])
    assert file.read_bytes() != content


def test_a_file_under_the_name_of_another_is_not_believed(tmp_path):
    zeros, ones = np.zeros((5, 3, 8, 8), dtype=np.uint8), np.ones((5, 3, 8, 8), dtype=np.uint8)
    for key, array in (("a", zeros), ("b", ones)):
        cache.cached(str(tmp_path), (key,), ("pixels",), lambda array=array: (array,))
    first, second = sorted(tmp_path.glob("*.npy"), key=lambda file: file.stat().st_mtime_ns)
    second.replace(first)
    assert not cache.cached(str(tmp_path), ("a",), ("pixels",), lambda: (zeros,))[0].array.any()
