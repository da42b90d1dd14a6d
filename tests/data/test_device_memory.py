"""Which images a GPU keeps, and how the others get there, as far as that needs no GPU."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.data.batches import Batches
from experiments.data.device_memory import nbytes, room_for_images
from experiments.data.images import Images
from experiments.files.cache import Cached
from experiments.training.features import FeatureRows

META = torch.device("meta")  # a device with a memory of its own, without numbers in it


@pytest.mark.parametrize(
    ("free", "cached", "allocated", "total", "runs", "room"),
    [
        (78, 0, 2, 80, 1, 39),  # half of what is left is for the network
        (8, 70, 2, 80, 1, 39),  # an earlier run of the process has left memory that torch keeps
        (20, 0, 0, 80, 1, 10),  # another program has the rest
        (78, 0, 2, 80, 4, 9),  # three more runs will start: each has 20
        (18, 0, 2, 80, 4, 9),  # all of them have started
        (6, 0, 2, 80, 4, 3),  # and one of them takes more than its share
        (0, 0, 79, 80, 1, 0),
        (30, 0, 25, 80, 4, 0),  # this one has its share already
    ],
)
def test_room_for_images(free, cached, allocated, total, runs, room):
    assert room_for_images(free, cached, allocated, total, runs) == room


def noise(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 2, ("a", "b"))


class Copies(TorchDispatchMode):
    """Notes the copies of images from the CPU: (images, whether in the background)."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is torch.ops.aten._to_copy.default and arguments[0].dtype == torch.uint8:
            self.seen.append((len(arguments[0]), bool(options.get("non_blocking"))))
        return function(*arguments, **options)


def test_pageable_memory_is_not_copied_in_the_background():
    """It may be free again before it is read: on MPS that gives wrong images without an error."""
    with Copies() as copies:
        assert [len(batch.pixels) for batch in Batches(noise(500), 150, META, streamed=True)] == [150, 150, 150, 50]
    assert sum(images for images, _ in copies.seen) == 500 and not any(background for _, background in copies.seen)


def test_what_a_gpu_keeps_is_not_copied_again():
    batches = Batches(noise(500), 150, META, "shuffle")
    with Copies() as copies:
        assert [batch.pixels.device.type for batch in batches] == ["meta"] * 4
    assert not copies.seen and not batches.streamed and batches.note == ""


def test_streaming_to_a_gpu_is_said():
    batches = Batches(noise(500), 150, META, streamed=True)
    assert (
        batches.note
        == "0.0 GB of training images, streamed because the GPU has no room for them, 3 or more batches prefetched"
    )


def test_features_count_with_their_own_size():
    assert nbytes(noise(10)) == 10 * 3 * 8 * 8
    rows = FeatureRows(Cached(np.zeros((10, 20), dtype=np.uint8)), (5,), (0, 1))
    assert nbytes(Images(rows, np.zeros(10, dtype=np.int64), ("a", "b"))) == 10 * 5 * 4
