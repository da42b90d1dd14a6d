"""Where a run computes, with how many threads, and in which precision."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

import torch

from experiments.config import Config, UserError
from experiments.files.limits import usable_cpus
from experiments.training import devices

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@functools.cache
def keep_blocks() -> None:
    """Let glibc keep the blocks that are freed: each step frees and asks for the same ones, megabytes each.

    By itself it gives them back to the system and takes them again, page after page: of an epoch of the default
    network a quarter, at batches of 512 nearly half. Nothing happens where the C library is another one.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)  # no mapping of its own for a large block
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # alone, this one makes it slower
        library.mallopt(M_TOP_PAD, 64 << 20)


def choose_device(config: Config) -> torch.device:
    """The device that `config.device` means on this machine, with its threads and its precision set.

    Raises:
        UserError: where it is not there, or cannot compute in the precision asked for.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name, there in available.items() if there) if config.device == "auto" else config.device
    if not available[kind]:
        raise UserError(
            f"device={kind}: not on this machine; it has {', '.join(n for n, there in available.items() if there)}"
        )
    if config.precision == "bf16" and kind == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UserError("precision=bf16: this processor cannot compute in bfloat16; take precision=fp32")
    if config.precision == "tf32" and kind != "cuda":
        raise UserError(f"precision=tf32: only CUDA has it, and this is device={kind}; take precision=fp32 or bf16")
    if kind == "cuda":  # set either way, because convolutions are in TF32 unless they are told otherwise
        exact = "tf32" if config.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.fp32_precision = exact
    if kind == "cpu":
        devices.keep_blocks()
    _set_threads(config.threads)
    return torch.device(kind)


def autocast(config: Config, device: str) -> torch.autocast:
    """What the network computes in, on a device of this type; to be entered any number of times."""
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


def _set_threads(threads: int | None) -> None:
    """So many; or, unless the environment says so, no more than the processors that this process may use.

    torch counts those of the machine, and knows nothing of the quota of a container: more threads than processors make
    it many times slower.
    """
    if threads is None and not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        usable = usable_cpus()
        threads = usable if usable < torch.get_num_threads() else None
    if threads:
        torch.set_num_threads(threads)
