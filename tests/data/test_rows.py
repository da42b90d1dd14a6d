"""The rows of every batch that one of several processes reads, augments and trains on."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.config.loading import compose_config
from experiments.data import Images
from experiments.data.augmentation import Augmentation
from experiments.data.batches import Batches
from experiments.data.rows import Rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 4, 16, 20])
def test_the_processes_divide_every_part_of_a_batch(size, count, parts):
    ranks = [Rows(rank, count, 16, parts).of(size) for rank in range(count)]
    assert [row for part in zip(*ranks) for rows in part for row in rows] == list(range(size))
    assert all(max(map(len, part)) - min(map(len, part)) <= 1 for part in zip(*ranks))


@pytest.mark.parametrize("augment", ["none", "augment=strong augment.mixup=0 augment.cutmix=0 augment.hue=0.1"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_together_they_see_the_images_of_one_process(augment, streamed, parts):
    images = Images(
        np.random.default_rng(0).integers(0, 256, (43, 3, 32, 32), dtype=np.uint8), np.arange(43) % 3, ("a", "b", "c")
    )
    settings = compose_config(augment.split() if augment != "none" else []).augment
    if augment != "none":
        settings = dataclasses.replace(settings, crop=0.3, flip="alternating")
    seen = []
    for count in (1, 2, 3):
        passes = []
        for rank in range(count):
            torch.manual_seed(0)
            rows = Rows(rank, count, 16, parts) if count > 1 else None
            batches = Batches(images, 16, CPU, "shuffle", streamed=streamed, rows=rows)
            augmentation = Augmentation(settings, 3, rows)
            passes.append([(batch.indices, *augmentation(batch, 1)) for batch in batches.from_step(1)])
        for step, ((indices, pixels, targets), *others) in enumerate(zip(*passes)):
            assert all(torch.equal(indices, other[0]) and torch.equal(targets, other[2]) for other in others)
            if count > 1:
                pieces = [Rows(rank, count, 16, parts).indices(len(indices)) for rank in range(count)]
                whole = torch.empty(len(indices), *pixels.shape[1:], dtype=pixels.dtype)
                for rows, found in zip(pieces, (pixels, *(other[1] for other in others))):
                    whole[rows] = found
                pixels = whole
            seen.append((count, step, indices, pixels))
    one = {step: (indices, pixels) for count, step, indices, pixels in seen if count == 1}
    assert len(seen) == 3 * len(one) and one
    for _, step, indices, pixels in seen:
        assert torch.equal(indices, one[step][0])
        assert torch.allclose(pixels.float(), one[step][1].float(), atol=1e-3)
