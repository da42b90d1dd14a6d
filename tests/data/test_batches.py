"""Batches: the same from memory, from a mapped file, and streamed from one that is too large."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.data.batches import Batches
from experiments.data.images import Images
from experiments.files import memory

CPU = torch.device("cpu")
COUNT = 1_000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A thousand pictures of noise."""
    path = tmp_path_factory.mktemp("pictures") / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8))
    return path


def pictures(file, mapped=True):
    """Every other one of them, in an order of their own."""
    source = np.asarray(np.load(file, mmap_mode="r" if mapped else None))
    labels = np.random.default_rng(1).integers(0, 10, COUNT)
    return Images(source, labels, tuple("0123456789"))[np.random.default_rng(2).permutation(COUNT)[: COUNT // 2]]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def mapped_into_memory(file):
    """Kilobytes of a mapped file that count as this process's."""
    _, found, after = Path("/proc/self/smaps").read_text().partition(str(file))
    assert found
    return int(after.partition("Rss:")[2].split()[0])


def small_limit(monkeypatch):
    """Files of a megabyte are taken for large ones."""
    monkeypatch.setattr("experiments.data.images.LARGE", 1 << 20)


@pytest.mark.parametrize("order", ["as_is", "shuffle", "balanced"])
@pytest.mark.parametrize("size", [1, 32, 64, 340, 341, 10_000])
def test_streamed_batches_are_those_from_memory(file, order, size):
    passes = []
    for mapped, streamed in ((False, False), (True, True)):
        torch.manual_seed(0)
        batches = Batches(pictures(file, mapped), size, CPU, order, streamed)
        passes.append([*batches, *batches])
        assert len(passes[-1]) == 2 * len(batches)
    for batch, other in zip(*passes, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(batch, other, strict=True))
    assert passes[0][0].rows.tolist() != passes[0][len(batches)].rows.tolist() or order == "as_is" or size == 1


def test_what_is_large_is_streamed_and_leaves_the_memory_alone(file, monkeypatch):
    assert not Batches(pictures(file), 32, CPU).streamed
    small_limit(monkeypatch)
    images = pictures(file)
    expected = images.source[images.rows]
    assert Batches(images, 32, CPU).streamed
    assert torch.equal(torch.cat([batch.pixels for batch in Batches(images, 32, CPU)]), torch.from_numpy(expected))
    assert np.array_equal(images.pixels, expected)
    assert len(images.digest) == 64
    del expected
    if sys.platform == "linux":
        assert mapped_into_memory(file) == 0
    assert not Batches(pictures(file, mapped=False), 32, CPU).streamed  # it is in memory already


def test_a_thread_reads_ahead_and_ends_with_the_loop(file):
    batches = Batches(pictures(file), 32, CPU, "shuffle", streamed=True)
    for _ in batches:
        assert len(threads()) == 1
        break
    assert not threads()
    list(batches)
    assert not threads()


def test_the_thread_ends_where_the_loop_fails(file):
    def loop():
        for _ in Batches(pictures(file), 32, CPU, streamed=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        loop()
    del caught
    assert not threads()


def test_what_fails_in_the_thread_fails_in_the_loop(file):
    images = pictures(file)
    beyond = Images(images.source, images.labels, images.classes, np.append(images.rows[:-1], COUNT))
    seen = 0
    with pytest.raises(IndexError, match=str(COUNT)):
        for batch in Batches(beyond, 32, CPU, streamed=True):
            seen += len(batch.rows)
    assert seen > 100
    assert not threads()


def test_the_memory_that_a_process_may_use():
    assert 1 << 28 < memory.limit() <= 1 << 60


@pytest.mark.parametrize(
    "groups, file, limit",
    [
        ("0::/a/b", "a/memory.max", 1000),
        ("0::/", "memory.max", 1000),
        ("4:memory:/a/b\n3:cpuset:/", "memory/a/b/memory.limit_in_bytes", 1000),
        ("3:cpuset:/a", "memory/a/memory.limit_in_bytes", None),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path, groups, file, limit):
    own = tmp_path / "cgroup"
    own.write_text(groups)
    place = tmp_path / "mount" / file
    place.parent.mkdir(parents=True)
    place.write_text("1000\n")
    (place.parent / "below").mkdir()
    (place.parent / "below" / place.name).write_text("max\n")
    assert memory.of_control_groups(own, tmp_path / "mount") == ([limit] if limit else [])
