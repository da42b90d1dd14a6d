"""Batches: the same from memory, from a mapped file, and streamed from a file that is too large."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.data.batches import Batches
from experiments.data.images import Images

CPU = torch.device("cpu")
COUNT = 1_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A thousand images of noise."""
    path = tmp_path_factory.mktemp("pictures") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8))
    return path


def images_in(file, mapped=True):
    """Half of them, in a random order."""
    source = np.asarray(np.load(file, mmap_mode="r" if mapped else None))
    labels = np.random.default_rng(1).integers(0, 10, COUNT)
    return Images(source, labels, tuple("0123456789"))[np.random.default_rng(2).permutation(COUNT)[: COUNT // 2]]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def mapped_into_memory(file):
    """Kilobytes of a mapped file that count as memory of this process."""
    _, found, after = Path("/proc/self/smaps").read_text().partition(str(file))
    assert found
    return int(after.partition("Rss:")[2].split()[0])


def small_limit(monkeypatch):
    """Files of a megabyte count as large."""
    monkeypatch.setattr("experiments.data.pixels.LARGE", 1 << 20)


@pytest.mark.parametrize("order", ["as_is", "shuffle", "balanced"])
@pytest.mark.parametrize("size", [1, 32, 64, 340, 341, 10_000])
def test_streamed_batches_are_those_from_memory(file, order, size):
    passes = []
    for mapped, streamed in ((False, False), (True, True)):
        torch.manual_seed(0)
        batches = Batches(images_in(file, mapped), size, CPU, order, streamed)
        passes.append([*batches, *batches])
        assert len(passes[-1]) == 2 * len(batches)
    for batch, other in zip(*passes, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(batch, other, strict=True))
    assert passes[0][0].indices.tolist() != passes[0][len(batches)].indices.tolist() or order == "as_is" or size == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("order", ["as_is", "shuffle", "balanced"])
@pytest.mark.parametrize("size", [7, 32, 341])
def test_a_pass_from_a_step_on_is_the_rest_of_the_whole_one(file, order, size, streamed):
    batches = Batches(images_in(file), size, CPU, order, streamed)
    torch.manual_seed(0)
    whole, after = [*batches], torch.get_rng_state()
    for step in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)}:
        torch.manual_seed(0)
        rest = batches.from_step(step)
        assert torch.equal(torch.get_rng_state(), after)  # all is drawn before the first batch is read
        for batch, same in zip(rest, whole[step:], strict=True):
            assert all(torch.equal(part, other) for part, other in zip(batch, same, strict=True))


def test_batches_before_a_step_are_not_read(file):
    images = images_in(file)
    beyond = Images(images.source, images.labels, images.classes, np.append(COUNT, images.indices[1:]))
    with pytest.raises(IndexError, match=str(COUNT)):
        list(Batches(beyond, 32, CPU))
    assert sum(len(batch.labels) for batch in Batches(beyond, 32, CPU).from_step(1)) == len(images) - 32


def test_a_large_file_is_streamed_and_does_not_fill_the_memory(file, monkeypatch):
    assert not Batches(images_in(file), 32, CPU).streamed
    small_limit(monkeypatch)
    images = images_in(file)
    expected = images.source.array[images.indices]
    assert Batches(images, 32, CPU).streamed
    assert torch.equal(torch.cat([batch.pixels for batch in Batches(images, 32, CPU)]), torch.from_numpy(expected))
    assert np.array_equal(images.pixels, expected)
    assert len(images.digest) == 64
    del expected
    if sys.platform == "linux":
        assert mapped_into_memory(file) == 0
    assert not Batches(images_in(file, mapped=False), 32, CPU).streamed  # it is in memory already


def test_a_thread_prefetches_and_ends_with_the_loop(file):
    batches = Batches(images_in(file), 32, CPU, "shuffle", streamed=True)
    for _ in batches:
        assert len(threads()) == 1
        break
    assert not threads()
    list(batches)
    assert not threads()


def test_the_thread_ends_where_the_loop_fails(file):
    def loop():
        for _ in Batches(images_in(file), 32, CPU, streamed=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        loop()
    del caught
    assert not threads()


def test_what_fails_in_the_thread_fails_in_the_loop(file):
    images = images_in(file)
    beyond = Images(images.source, images.labels, images.classes, np.append(images.indices[:-1], COUNT))
    seen = 0
    with pytest.raises(IndexError, match=str(COUNT)):
        for batch in Batches(beyond, 32, CPU, streamed=True):
            seen += len(batch.indices)
    assert seen > 100
    assert not threads()


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [
        (1200, 32, [32] * 37 + [16]),
        (1200, 11, [11] * 108 + [12]),
        (40_000, 32, [32] * 1250),
        (40_000, 128, [128] * 312 + [64]),
        (9, 4, [4, 5]),  # one image is always merged
        (10, 4, [4, 4, 2]),
        (108, 100, [108]),
        (124, 100, [124]),
        (125, 100, [100, 25]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
        (7, 100, [7]),
        (1, 100, [1]),
    ],
)
@pytest.mark.parametrize("order", ["shuffle", "balanced"])
def test_a_small_last_batch_is_merged_in_training(images, size, expected, order):
    labels = np.arange(images) % 2
    some = Images(np.zeros((images, 3, 1, 1), dtype=np.uint8), labels, ("a", "b"))
    batches = Batches(some, size, CPU, order)
    assert [len(batch.labels) for batch in batches] == batches.sizes == expected and len(batches) == len(expected)
    every = torch.cat([batch.indices for batch in batches])
    assert order == "balanced" or sorted(every.tolist()) == list(range(images))
    split = -(-images // size) * [size]
    split[-1] -= sum(split) - images
    assert [len(batch.labels) for batch in Batches(some, size, CPU)] == split  # an evaluation pads them
