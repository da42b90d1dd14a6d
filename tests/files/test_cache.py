"""Decoded arrays on disk: made once, made again when a file changes, and replaced when damaged."""

import os

import pytest

from samples import answer, load_elsewhere, paint, splits_of


def test_pictures_are_decoded_once_and_again_when_they_change(picture_folder, here):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first = splits_of(*overrides)
    state = (picture_folder / "cat/0.png").stat()
    (picture_folder / "cat/0.png").write_bytes(bytes(state.st_size))
    os.utime(picture_folder / "cat/0.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert answer(load_elsewhere(*overrides))[0] == first.digest and len(list(here.glob("outputs/cache/*.npy"))) == 1
    paint(picture_folder, "cat", 1, 500, size=30)
    (picture_folder / "cat/500.png").rename(picture_folder / "cat/0.png")
    assert splits_of(*overrides).digest != first.digest


@pytest.mark.parametrize("content", [b"", b"no array", slice(60), slice(-1)], ids=["empty", "strange", "header", "cut"])
@pytest.mark.slow
def test_a_damaged_cache_is_replaced(picture_folder, here, content):
    overrides = ("data=image_folder", f"data.root={picture_folder}")
    first = splits_of(*overrides)
    (cached,) = here.glob("outputs/cache/*.npy")
    whole = cached.read_bytes()
    cached.unlink()  # not cut in place, because this process has it mapped
    cached.write_bytes(content if isinstance(content, bytes) else whole[content])
    assert answer(load_elsewhere(*overrides))[0] == first.digest
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
