"""The FLOP/s of the fastest matrix product on this machine at this moment, and the FLOP per image."""

import json
import time
from collections.abc import Callable
from functools import partial

import torch
from notebook_network import network
from stopwatch import Request
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

SHAPES = [
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (12_288, 512, 32),
    (12_288, 512, 512),
]  # (rows, inner, columns); rows are a multiple of 1024, 16 images of 8x8; the last two are those of convolutions
LARGE = [(8192, 8192, 8192)]  # a GPU needs
SECONDS = 0.2  # per shape and operation
IMAGES = 8  # to count with; a network may need more than one


def peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the fastest of many products, each as a matrix product and as the equal 1x1 convolution.

    On a CPU these are in different libraries: on AMD's processors MKL uses half of the vector units in fp32, oneDNN all.
    """
    rates = []
    for rows, inner, columns in SHAPES + LARGE * (device == "cuda"):
        matrix, filters = (torch.randn(size, inner, device=device).to(dtype) for size in (rows, columns))
        # Channels-last, and at least 16 images: with fewer, a single thread uses MKL for this, too.
        images = matrix.view(-1, 8, 8, inner).permute(0, 3, 1, 2)
        for operation, *operands in (
            (functional.linear, matrix, filters),
            (functional.conv2d, images, filters.view(columns, inner, 1, 1)),
        ):
            rates.append(2 * rows * inner * columns / fastest(partial(operation, *operands), device))
    return max(rates)


def fastest(product: Callable[[], torch.Tensor], device: str) -> float:
    """Seconds of the fastest of many calls."""
    times = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        product()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


def flops(model: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """FLOP per image: of the forward pass, and of the forward and the backward pass."""
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.eval()(images)
    with FlopCounterMode(display=False) as training:
        model.train()(images).float().sum().backward()
    count = len(images)
    return {"forward": forward.get_total_flops() / count, "training": training.get_total_flops() / count}


def main(request: Request) -> None:
    if request.threads:
        torch.set_num_threads(request.threads)
    from experiments.config.loading import compose_config
    from experiments.models.build import build

    config = compose_config([*request.overrides])
    ours = build(config, 10)
    pixels = torch.randint(256, (IMAGES, *config.data.image_shape), dtype=torch.uint8)
    counted = {"ours": flops(ours, pixels), "others": flops(network(), torch.rand(IMAGES, 3, 32, 32))}
    device = "cuda" if request.device == "auto" and torch.cuda.is_available() else request.device.replace("auto", "cpu")
    exact = "tf32" if request.precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.fp32_precision = exact  # as this project sets it
    rate = peak(torch.bfloat16 if request.precision == "bf16" else torch.float32, device)
    print("\n" + json.dumps({"peak": rate, "flops": counted}))


if __name__ == "__main__":
    main(Request.read())
