"""A GPU that computes nothing: tensors without values, and a mode that checks every operator that a real one would run.

with fake_device("cuda", seen := Operators()): ...

Operators on the CPU run as usual. `mps` is imitated on PyTorch's meta device: this PyTorch knows no MPS.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

META = torch.device("meta")  # autograd is told that a tensor is there, because it would ask a GPU for its streams
UNKNOWN = ("_fused_sgd_",)  # to tensors without values; returns nothing
KINDS = {"cuda": "cuda", "mps": "meta"}
# Operators whose result, or the size of it, depends on values: the host waits for them.
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "equal",
    "is_nonzero",
    "repeat_interleave",
)


class Waits(AssertionError):
    """The host would wait for the device, or copy in a way that the device does not allow."""


class FakeDevice(TorchDispatchMode):
    """Counts the operators on the device, and raises an error for one that the device would not run, or not at once.

    Attributes:
        operators: how often each one ran.
        running: whether the host must not wait.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.device = kind, torch.device(KINDS[kind])
        self.operators: Counter[str] = Counter()
        self.running = False
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    @contextlib.contextmanager
    def used(self):
        with contextlib.ExitStack() as stack:
            if self.kind == "cuda":
                stack.enter_context(self.fake)
            stack.enter_context(self)
            stack.enter_context(Reads())
            yield self

    def autocast(self, config, device) -> torch.autocast:
        """As `devices.autocast`: PyTorch refuses it without the device, on which it would be."""
        context = torch.autocast("cuda" if self.kind == "cuda" else "cpu", torch.bfloat16, enabled=False)
        context._enabled = self.kind == "cuda" and config.precision == "bf16"
        return context

    def _is_on(self, tensor) -> bool:
        return isinstance(tensor, FakeTensor) or tensor.device.type == self.device.type

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.ops.prim.device.default:
            return META
        if self.kind == "cuda" and kwargs.get("device") == META:
            kwargs["device"] = self.device
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = kwargs.get("device") or next((leaf for leaf in args if isinstance(leaf, torch.device)), None)
        to_device = target is not None and torch.device(target).type == self.device.type
        if not to_device and not any(map(self._is_on, tensors)):
            with _disable_current_modes():
                return function(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # operators that are made of others arrive whole
            with self:
                results = function.decompose(*args, **kwargs)
            if results is not NotImplemented:
                return results
        name = function.overloadpacket.__name__
        self.operators[function.name()] += 1
        self._check(name, function, tensors, args, kwargs)
        if name == "_local_scalar_dense":
            return {torch.bool: False, torch.int64: 1}.get(args[0].dtype, 1.0)
        if name in UNKNOWN:
            return None
        if name == "bincount":  # it knows no tensors without values
            return torch.empty(args[2], dtype=torch.int64, device=self.device)
        if name == "nonzero":
            return torch.empty((0, args[0].ndim), dtype=torch.int64)
        if self.kind == "mps" and target is not None and torch.device(target).type == "cpu":
            return torch.ones(args[0].shape, dtype=args[0].dtype)
        results = function(*args, **kwargs)
        if self.kind == "mps":
            wide = [leaf.dtype for leaf in tree_leaves(results) if isinstance(leaf, Tensor) and self._is_on(leaf)]
            assert torch.float64 not in wide, f"{function}: MPS has no float64"
        return results

    def _check(self, name, function, tensors, args, kwargs) -> None:
        copies = name in ("_to_copy", "copy_")
        background = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if self.kind == "mps" and copies and background and args[-1 if name == "copy_" else 0].device.type == "cpu":
            raise Waits(f"{function}: MPS may not copy from pageable memory in the background")
        others = {tensor.device.type for tensor in tensors if not self._is_on(tensor) and tensor.ndim}
        if others and not copies:
            raise Waits(f"{function}: one tensor is on {self.kind}, another on {others}")
        if not self.running:
            return
        masks = [leaf for leaf in tree_leaves(args[1:2]) if isinstance(leaf, Tensor) and leaf.dtype == torch.bool]
        if name in WAITING or (name in ("index", "index_put_", "index_put") and masks):
            raise Waits(f"{function}: the host waits for the device")
        places = {tensor.device.type for tensor in tensors} | (
            {torch.device(kwargs["device"]).type} if kwargs.get("device") else set()
        )
        pixels = copies and tensors[-1].dtype == torch.uint8 and tensors[-1].ndim == 4  # streamed from pinned memory
        if copies and len(places) > 1 and not background and self.kind == "cuda" and not pixels:
            raise Waits(f"{function}: a copy between host and device waits for the device")


class Reads(TorchFunctionMode):
    """What the host reads of a tensor without values is all ones."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.numpy and (isinstance(args[0], FakeTensor) or args[0].device.type == "meta"):
            with _disable_current_modes():
                kind = torch.empty(0, dtype=args[0].dtype).numpy().dtype
            return np.ones(tuple(args[0].shape), dtype=kind)
        return function(*args, **(kwargs or {}))


@functools.cache
def mps_operators() -> frozenset[str]:
    """The operators that MPS has, or that are made of others, in the table from which PyTorch is built."""
    import torchgen

    text = (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    found, delegates = set(), {}
    for block in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        name = block[: block.index("(")]
        keys = {key for line in re.findall(r"^    ([\w, ]+):", block, re.MULTILINE) for key in line.split(", ")}
        delegate = re.search(r"structured_delegate: (\S+)", block)
        if delegate:
            delegates[name] = delegate[1]
        elif "dispatch:" not in block or "MPS" in keys or any(key.startswith("Composite") for key in keys):
            found.add(name)
    found |= {name for name, other in delegates.items() if other in found}
    return frozenset(f"aten::{name}" for name in found)
