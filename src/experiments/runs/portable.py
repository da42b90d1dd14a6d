"""A network as a file that other programs read: ONNX, ONNX with 8-bit integers, or PyTorch's pt2.

Every file takes raw uint8 images (N, 3, H, W), any number of them, and returns logits (N, classes). Facts about the network,
such as the class names, are in its metadata.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.config import UserError
from experiments.files.atomic import atomic_write

INPUT, OUTPUT = "images", "logits"
ABOUT = "about.json"  # in a pt2 file; ONNX has metadata of its own
WEIGHTED = {"Conv", "Gemm", "MatMul"}

Network = Callable[[np.ndarray], np.ndarray]  # uint8 (N, 3, H, W) to float32 (N, classes)


def write_pt2(program: torch.export.ExportedProgram, about: Mapping[str, str], path: Path) -> None:
    """Write a network for `torch.export.load`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # also about correct networks
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(about, ensure_ascii=False)})


def open_pt2(path: Path) -> Network:
    """The network in a file of `write_pt2`."""
    network = torch.export.load(path).module()

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = network(torch.from_numpy(images)).numpy()
        return logits

    return predict


def write_onnx(program: torch.export.ExportedProgram, about: Mapping[str, str], path: Path) -> None:
    """Write a network as ONNX.

    Raises:
        UserError: ONNX has no operator for a part of the network.
    """
    import onnx  # an extra

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own code
            exported = torch.onnx.export(
                program, input_names=[INPUT], output_names=[OUTPUT], external_data=False, verbose=False
            )
    except Exception as error:  # the exporter raises many classes of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--format onnx: this network cannot be written as ONNX ({reason}); use --format pt2") from None
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    _save(onnx, model, about, path)


def write_int8(source: Path, calibration: Iterable[np.ndarray], about: Mapping[str, str], path: Path) -> None:
    """Write an ONNX network again with 8-bit integers: weights per channel, activations by their range on some images.

    Activations are unsigned: x86 processors compute unsigned times signed integers, and with signed ones SqueezeNet takes
    3.6 times as long. The normalisation of the images stays in floats: it would be rounded twice, and costs next to nothing.

    Args:
        calibration: batches of uint8 images (N, 3, H, W).
    """
    import onnx  # extras
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)  # BatchNorm becomes part of the convolutions
    quantization.quantize_static(
        prepared,
        path,
        _Calibration(calibration),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        nodes_to_exclude=_before_weights(onnx.load(prepared)),
    )
    _save(onnx, onnx.load(path), about, path)


class _Calibration:
    """The images, in the form that onnxruntime takes."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def _before_weights(model: Any) -> list[str]:
    """The names of the operators before the first one with weights: they cut and normalise the images."""
    names = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            break
        names.append(node.name)
    return names


def _save(onnx: Any, model: Any, about: Mapping[str, str], path: Path) -> None:
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def open_onnx(path: Path) -> Network:
    """The network in an ONNX file, run by onnxruntime with as many threads as PyTorch uses."""
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run([OUTPUT], {INPUT: images})[0]
        return logits

    return predict


def publish(part: Path, path: Path) -> None:
    """Copy a complete file to its place, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb") as content, atomic_write(path) as file:
        shutil.copyfileobj(content, file)
