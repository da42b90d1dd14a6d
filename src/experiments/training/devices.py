"""Where a run computes, with how many threads, in which precision, and with which random numbers."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from experiments.config import Config, UserError
from experiments.config.processes import Processes, launched
from experiments.config.wording import counted
from experiments.files.limits import busy_cpus, usable_cpus
from experiments.training.operators import cpu_has_bf16

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
ENVIRONMENT = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
WORKSPACE, REPRODUCIBLE = (
    "CUBLAS_WORKSPACE_CONFIG",
    (":4096:8", ":16:8"),
)  # of cuBLAS, and values with reproducible sums
NOT_DETERMINISTIC = r"(\S+) does not have a deterministic implementation"
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

    Of several CUDA devices it is that of the process: the one that torchrun gives it, else the current one.

    Raises:
        UserError: the device is not available, or cannot compute in the requested precision.
    """
    device = torch.device(_available(config))
    if device.type == "cuda":
        index = cuda_index(launched(), torch.cuda.device_count(), torch.cuda.current_device())
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        # cuBLAS reads it only once in a process, so it is set for a later run with deterministic=true as well.
        os.environ.setdefault(WORKSPACE, REPRODUCIBLE[0])
        set_tf32(config.precision == "tf32")
    _check_precision(config, device.type)
    if device.type == "cpu":
        keep_blocks()
    _set_threads(config.threads)
    return device


def device_type(config: Config) -> str:
    """The type of the device that `config.device` means on this machine.

    Raises:
        UserError: the device is not available, or cannot compute in the requested precision.
    """
    kind = _available(config)
    _check_precision(config, kind)
    return kind


def _available(config: Config) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name, there in available.items() if there) if config.device == "auto" else config.device
    if not available[kind]:
        names = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device={kind}: is not available on this machine, which has {names}")
    return kind


def cuda_index(here: Processes, count: int, current: int) -> int:
    """The number of the CUDA device of a process, of `count` that it sees.

    Raises:
        UserError: there are fewer devices than processes on this machine.
    """
    if here.count == 1:
        return current
    if here.local_count > count:
        raise UserError(f"--nproc-per-node={here.local_count}: this machine has {counted(count, 'CUDA device')}")
    return here.local_rank


def _check_precision(config: Config, kind: str) -> None:
    """Check that the current device of this type computes in the configured precision itself, and does not imitate it."""
    if config.precision == "bf16" and kind == "cpu" and not cpu_has_bf16():
        raise UserError("precision=bf16: this processor cannot compute in bfloat16; use precision=fp32")
    if config.precision == "bf16" and kind == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("precision=bf16: MPS computes in bfloat16 from macOS 14 on; use precision=fp32")
    if config.precision == "tf32" and kind != "cuda":
        raise UserError(f"precision=tf32: only CUDA has it, and this is device={kind}; use precision=fp32 or bf16")
    if kind != "cuda" or config.precision == "fp32":
        return
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if not (bf16 if config.precision == "bf16" else torch.cuda.is_tf32_supported()):
        name = torch.cuda.get_device_name()
        raise UserError(f"precision={config.precision}: {name} cannot compute in it; use precision=fp32")


def set_tf32(on: bool) -> None:
    """Let CUDA round the factors of float32 products to TF32, or not; by default PyTorch does in convolutions.

    PyTorch has old and new flags for it, and raises an error when an old one is read that differs from a new one, as
    `torch.backends.cudnn.flags` and the compiler do. Setting the old ones also sets the new ones.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


@contextlib.contextmanager
def deterministic(config: Config) -> Iterator[None]:
    """With deterministic=true only algorithms that always give the same bits; the flags are restored afterwards.

    Raises:
        UserError: an operation has no such algorithm; the message names it.
    """
    if not config.deterministic:
        yield
        return
    if (chosen := os.environ.get(WORKSPACE, REPRODUCIBLE[0])) not in REPRODUCIBLE:
        raise UserError(
            f"deterministic=true: {WORKSPACE}={chosen} must be {' or '.join(REPRODUCIBLE)} in the environment"
        )
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True)
        yield
    except RuntimeError as error:
        if not (found := re.match(NOT_DETERMINISTIC, str(error))):
            raise
        raise UserError(
            f"deterministic=true: {found[1]} has no deterministic implementation; "
            "use another network or setting without this operation, or deterministic=false"
        ) from None
    finally:
        cudnn.deterministic, cudnn.benchmark = before
        torch.use_deterministic_algorithms(strict, warn_only=warns)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a run on this device uses, by the type of their device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set them; the generator of a device that the run did not use before keeps its seed."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type], device)


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
