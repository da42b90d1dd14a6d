"""How images get into the memory of a GPU: all of them once, or, where they do not fit, chunk by chunk while the network computes."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from experiments.data.images import Images
from experiments.files.limits import runs_per_gpu


def fit(parts: Sequence[Images], device: torch.device) -> bool:
    """Whether the images, all parts together, are to be kept in the memory of a GPU."""
    gc.collect()  # an earlier run of this process may have left tensors in reference cycles
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    elif device.type == "mps":
        allocated, reserved = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        total = torch.mps.recommended_max_memory()
        free = total - reserved
    else:  # not a device with a memory of its own
        return True
    return sum(map(nbytes, parts)) <= room_for_images(free, reserved - allocated, allocated, total, runs_per_gpu())


def room_for_images(free: int, cached: int, allocated: int, total: int, runs: int) -> int:
    """Bytes of a GPU that images may take: half of what this run may use. The other half is left for the network.

    Args:
        free: bytes that no process uses.
        cached: that torch keeps for this process, and that no tensor uses.
        allocated: of the tensors of this process.
        total: of the GPU.
        runs: that share the GPU, with as many bytes each.
    """
    return max(0, min(free + cached, total // runs - allocated)) // 2


def nbytes(images: Images) -> int:
    """Bytes of all pixels, or of the features in their place."""
    return images.nbytes * images[:0].pixels.itemsize


def copied(images: Images, device: torch.device) -> Tensor:
    """All pixels on the device, copied chunk by chunk, so that the host's memory never holds all of them."""
    kind = torch.from_numpy(images[:0].pixels).dtype  # uint8, but for features in place of pixels
    pixels = torch.empty(images.shape, dtype=kind, device=device)
    start = 0
    for chunk in images.chunks():
        pixels[start : start + len(chunk)] = torch.from_numpy(chunk)
        start += len(chunk)
    return pixels


def copied_ahead(chunks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copies of pinned chunks on a CUDA device. While the network computes with one, the next one is copied on another stream.

    The CPU does not wait: the stream of the network does, for the copy. torch keeps the pinned memory until then.
    """
    copying = torch.cuda.Stream(device)
    before: tuple[Tensor, torch.cuda.Event] | None = None
    for chunk in chunks:
        with torch.cuda.stream(copying):
            started = chunk.to(device, non_blocking=True), copying.record_event()
        if before:
            yield _received(*before)
        before = started
    if before:
        yield _received(*before)


def _received(pixels: Tensor, done: torch.cuda.Event) -> Tensor:
    """The copy, once it is done; its memory belongs to the other stream, which must not reuse it before this one has read it."""
    computing = torch.cuda.current_stream(pixels.device)
    computing.wait_event(done)
    pixels.record_stream(computing)
    return pixels
