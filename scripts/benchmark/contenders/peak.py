"""The largest rate of a matrix product on this machine right now, and the FLOP of one picture."""

import json
import time
from collections.abc import Callable
from functools import partial

import torch
from notebook_network import network
from stopwatch import Asked
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

SHAPES = [
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (12_288, 512, 32),
    (12_288, 512, 512),
]  # rows, a multiple of the 1024 of 16 pictures; inner; columns: the last two as convolutions have them
SECONDS = 0.2  # a shape, each way
PICTURES = 8  # counted with; a network may need more than one


def peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the best of many products, each as a matrix product and as the 1x1 convolution that is the same.

    On a CPU these come from different libraries: on AMD's, MKL uses half of the vector units in fp32, oneDNN all.
    """
    rates = []
    for rows, inner, columns in SHAPES:
        matrix, filters = (torch.randn(size, inner, device=device).to(dtype) for size in (rows, columns))
        # Channels-last, and at least 16: of fewer, one thread makes a product by MKL.
        pictures = matrix.view(-1, 8, 8, inner).permute(0, 3, 1, 2)
        for operation, *operands in (
            (functional.linear, matrix, filters),
            (functional.conv2d, pictures, filters.view(columns, inner, 1, 1)),
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


def flops(model: nn.Module, pictures: torch.Tensor) -> dict[str, float]:
    """Of one picture: forward alone, and forward and backward."""
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.eval()(pictures)
    with FlopCounterMode(display=False) as training:
        model.train()(pictures).float().sum().backward()
    count = len(pictures)
    return {"forward": forward.get_total_flops() / count, "training": training.get_total_flops() / count}


def main(asked: Asked) -> None:
    if asked.threads:
        torch.set_num_threads(asked.threads)
    from experiments.config.loading import compose_config
    from experiments.models import build

    config = compose_config([*asked.overrides])
    ours = build.build(config, 10)
    pixels = torch.randint(256, (PICTURES, *config.data.image_shape), dtype=torch.uint8)
    counted = {"ours": flops(ours, pixels), "others": flops(network(), torch.rand(PICTURES, 3, 32, 32))}
    device = "cuda" if asked.device == "auto" and torch.cuda.is_available() else asked.device.replace("auto", "cpu")
    rate = peak(torch.bfloat16 if asked.precision == "bf16" else torch.float32, device)
    print("\n" + json.dumps({"peak": rate, "flops": counted}))


if __name__ == "__main__":
    main(Asked.read())
