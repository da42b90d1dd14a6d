"""Where a run computes, with how many threads, and in which precision."""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import os
import sys

import torch

from experiments.config import Config, UserError
from experiments.files.limits import busy_cpus, usable_cpus

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
ENVIRONMENT = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
TORCH_THREADS = torch.get_num_threads()  # before a run sets another number
log = logging.getLogger(__name__)


@functools.cache
def keep_blocks() -> None:
    """Let glibc keep freed blocks: every step frees and requests the same ones, megabytes each.

    By default glibc returns them to the system and requests them again, page by page: this takes a quarter of an epoch of
    the default network, and nearly half of it at batches of 512. Does nothing with another C library.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)  # no separate mapping for a large block
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # alone, this one makes it slower
        library.mallopt(M_TOP_PAD, 64 << 20)


def choose_device(config: Config) -> torch.device:
    """The device that `config.device` means on this machine. Sets the number of threads and the precision.

    Raises:
        UserError: the device is not available, or cannot compute in the requested precision.
    """
    kind = device_type(config)
    if kind == "cuda":  # set in both cases, because PyTorch computes convolutions in TF32 by default
        exact = "tf32" if config.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.fp32_precision = exact
    if kind == "cpu":
        keep_blocks()
    _set_threads(config.threads)
    return torch.device(kind)


def device_type(config: Config) -> str:
    """The type of the device that `config.device` means on this machine.

    Raises:
        UserError: the device is not available, or cannot compute in the requested precision.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name, there in available.items() if there) if config.device == "auto" else config.device
    if not available[kind]:
        names = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device={kind}: is not available on this machine, which has {names}")
    if config.precision == "bf16" and kind == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UserError("precision=bf16: this processor cannot compute in bfloat16; use precision=fp32")
    if config.precision == "tf32" and kind != "cuda":
        raise UserError(f"precision=tf32: only CUDA has it, and this is device={kind}; use precision=fp32 or bf16")
    return kind


def autocast(config: Config, device: str) -> torch.autocast:
    """A context in which the network computes in the configured precision on a device of this type; it can be reused."""
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


def _set_threads(threads: int | None) -> None:
    """Use `threads`; if None, the number in the environment, as launchers set it, else a number that this machine can run."""
    if threads is None:
        threads = TORCH_THREADS if ENVIRONMENT & os.environ.keys() else free_cpus()
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def continue_with(threads: int, config: Config) -> None:
    """Use as many threads as the process that started a run, unless the user chose a number: the same threads, the same bits."""
    if can_continue_with(threads, config) and threads != torch.get_num_threads():
        log.warning("threads=%s, as the run was started with", threads)
        torch.set_num_threads(threads)


def can_continue_with(threads: int, config: Config) -> bool:
    """Whether a run of this process may use as many threads: they are those in use, or the user has not chosen a number."""
    chosen = config.threads is not None or bool(ENVIRONMENT & os.environ.keys())
    return threads == torch.get_num_threads() or (not chosen and 0 < threads <= usable_cpus())


@functools.cache  # all runs of a process use one number
def free_cpus() -> int:
    """The number of processors that this process may use and that other programs leave free; at least 1.

    A thread without a free processor makes the others wait in each of the many short parts of a step: with two processors
    in use by others, one thread trains the default network on digits five times as fast as two.
    """
    usable = usable_cpus()
    busy = busy_cpus() if usable > 1 else 0.0
    free = min(usable, max(1, (os.cpu_count() or 1) - math.floor(busy + 0.25)))
    if free < usable:
        log.warning("threads=%s, because other programs use %.1f processors; threads=%s uses all", free, busy, usable)
    return free
