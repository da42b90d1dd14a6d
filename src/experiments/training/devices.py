"""Where a run computes, with how many threads, and in which precision."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

import torch

from experiments.config import Config, UserError
from experiments.files.limits import usable_cpus

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


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
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name, there in available.items() if there) if config.device == "auto" else config.device
    if not available[kind]:
        names = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device={kind}: is not available on this machine, which has {names}")
    if config.precision == "bf16" and kind == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UserError("precision=bf16: this processor cannot compute in bfloat16; use precision=fp32")
    if config.precision == "tf32" and kind != "cuda":
        raise UserError(f"precision=tf32: only CUDA has it, and this is device={kind}; use precision=fp32 or bf16")
    if kind == "cuda":  # set in both cases, because PyTorch computes convolutions in TF32 by default
        exact = "tf32" if config.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.fp32_precision = exact
    if kind == "cpu":
        keep_blocks()
    _set_threads(config.threads)
    return torch.device(kind)


def autocast(config: Config, device: str) -> torch.autocast:
    """A context in which the network computes in the configured precision on a device of this type; it can be reused."""
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


@functools.cache
def default_threads() -> int:
    """The number of threads before any run of this process set one."""
    return torch.get_num_threads()


def _set_threads(threads: int | None) -> None:
    """Use `threads`; if None, the default number, and unless the environment sets it, at most the processors that this process may use.

    PyTorch counts the processors of the machine and ignores the quota of a container; more threads than processors make
    it many times slower.
    """
    default = default_threads()  # read before it is changed
    chosen = threads or default
    if threads is None and not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        chosen = min(chosen, usable_cpus())
    if chosen != torch.get_num_threads():
        torch.set_num_threads(chosen)
