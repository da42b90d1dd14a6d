"""Checks that concern several keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.config.data import SOURCES, DataSettings
from experiments.config.metrics import SELECTING
from experiments.config.networks import feature_size
from experiments.config.published import IMAGENET, LIBRARIES, network_mistakes
from experiments.config.wording import counted


def show_value(value: Any) -> str:
    """The value as it is typed on the command line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {show_value(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_STORE = re.compile(r"sqlite:///.|https?://.|(postgresql|mysql|mssql)(\+\w+)?://.|databricks")


def cross_checks(valid: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mistakes that concern several keys; a check is skipped if one of its keys is not valid alone."""

    def get(*keys: str) -> list[Any] | None:
        return [valid[key] for key in keys] if all(key in valid for key in keys) else None

    if values := get("model.kernel_size", "model.blocks", "data.image_size"):
        yield from _check_kernel(*values)
    if values := get("model.widths", "model.patch", "model.stride", "data.image_size"):
        widths, patch, stride, image_size = values
        yield from _check_halvings(widths, patch, stride, min((image_size, *valid.get("training.image_sizes", ()))))
    if values := get("model._target_", "model.weights"):
        yield from _check_network(valid, *values)
    if values := get("data._target_", "data.name"):
        yield from _check_source(valid, *values)
    if values := get("data.folds", "data.fold"):
        yield from _check_folds(*values)
    if (values := get("augment.translate", "data.image_size")) and values[0] >= values[1]:
        yield f"augment.translate={values[0]}: must be less than data.image_size={values[1]}"
    if (values := get("augment.cutout", "data.image_size")) and values[0] > values[1]:
        yield f"augment.cutout={values[0]}: must be at most data.image_size={values[1]}"
    if (values := get("augment.crop_scale", "augment.crop_ratio", "augment.crop")) and values[0]:
        yield from _check_crops(*values)
        if SOURCES.get(valid.get("data._target_", ""), DataSettings).of_files and valid.get("data.fit") == "squash":
            yield "augment.crop_scale needs data.fit=crop or data.fit=pad: with squash, images are small copies of the pictures"
    if (values := get("training.image_sizes", "training.epochs", "data.image_size")) and values[0]:
        yield from _check_image_sizes(*values)
        if "model.dense_width" in valid:
            yield f"training.image_sizes={list(values[0])}: must be [] for a network with a dense layer; model=fastnet accepts any"
    yield from _check_freezing(valid)
    if (values := get("training.accumulate", "training.batch_size")) and values[0] > values[1]:
        yield f"training.accumulate={values[0]}: must be at most training.batch_size={values[1]}"
    if (values := get("optimizer.nesterov", "optimizer.momentum")) and values[0] and values[1] == 0:
        yield "optimizer.nesterov=true: needs optimizer.momentum above 0"
    if (values := get("schedule.warmup", "training.epochs")) and values[0] >= values[1]:
        yield f"schedule.warmup={show_value(values[0])}: must be below training.epochs={values[1]}"
    if "sweep.objectives" in valid and len(set(valid["sweep.objectives"])) < max(1, len(valid["sweep.objectives"])):
        yield f"sweep.objectives={list(valid['sweep.objectives'])}: must be one or more different metrics"
    if (values := get("sweep.objectives[0]")) and values[0] not in SELECTING:
        yield f"sweep.objectives[0]={values[0]}: the first must be one of {', '.join(SELECTING)}; it selects the winner"
    if (values := get("tracking.uri")) and values[0] is not None and not _STORE.match(values[0]):
        yield f"tracking.uri={values[0]}: must be sqlite:///FILE.db, http://HOST:PORT, or the address of a database"


def _check_source(valid: Mapping[str, Any], target: str, name: str) -> Iterator[str]:
    source = SOURCES.get(target, DataSettings)
    total, validation = source.training_images, valid.get("data.validation_size", 0)
    if total and validation >= total:
        yield f"data.validation_size={validation}: must be at most {total - 1}; {name} has {counted(total, 'training image')}"
    if not all(valid.get("data.urls", ("any",))) or not valid.get("data.urls", True):
        yield f"data.urls={list(valid['data.urls'])}: must be one or more addresses of the archive"
    if not re.fullmatch("[0-9a-f]{64}", digits := valid.get("data.sha256", 64 * "0")):
        yield f"data.sha256={digits}: must be 64 hexadecimal digits, the SHA-256 of the archive"
    fixed, size = source.fixed_image_size, valid.get("data.image_size")
    if fixed and size and size != fixed:
        yield f"data.image_size={size}: must be {fixed} for {name}, whose images have {fixed}x{fixed} pixels"


def _check_network(valid: Mapping[str, Any], target: str, weights: str | None) -> Iterator[str]:
    sizes = (valid["data.image_size"], *valid.get("training.image_sizes", ())) if "data.image_size" in valid else ()
    if target in LIBRARIES and "model.name" in valid:
        yield from network_mistakes(target, valid["model.name"], weights, sizes)
    elif weights == IMAGENET and target not in LIBRARIES:
        yield f"model.weights={IMAGENET}: this network has none; set null, a file, or run:ID"


def _check_folds(folds: int | None, fold: int | None) -> Iterator[str]:
    if folds is None:
        if fold is not None:
            yield f"data.fold={fold}: needs data.folds, the number of folds, such as data.folds=5"
    elif fold is None:
        every = ",".join(map(str, range(folds))) if folds <= 10 else f"range(0,{folds})"
        yield f"data.folds={folds}: needs data.fold, 0 to {folds - 1}; all of them: python train.py -m data.fold={every} ..."
    elif fold >= folds:
        yield f"data.fold={fold}: must be from 0 to {folds - 1}, because data.folds={folds}"


def _check_crops(scale: tuple[float, float], ratio: tuple[float, float], crop: float) -> Iterator[str]:
    for key, (low, high) in (("scale", scale), ("ratio", ratio)):
        if low > high:
            yield f"augment.crop_{key}={show_value((low, high))}: must be the least, then the greatest: [{high}, {low}]"
    if crop:
        yield f"augment.crop={crop}: must be 0 with augment.crop_scale, which crops the photograph itself"


def _check_kernel(kernel: int, blocks: int, image_size: int) -> Iterator[str]:
    if feature_size(image_size, kernel, blocks) >= 1:
        return
    largest = max((k for k in range(1, image_size + 1) if feature_size(image_size, k, blocks) >= 1), default=None)
    if largest is None:
        most = next(b for b in range(blocks, -1, -1) if feature_size(image_size, 1, b) >= 1)
        yield f"model.blocks={blocks}: too many for images of {image_size}x{image_size}; must be at most {most}"
    else:
        yield (
            f"model.kernel_size={kernel}: too large for images of {image_size}x{image_size} and "
            f"{counted(blocks, 'block')}; the largest that fits is {largest}"
        )


def _check_image_sizes(sizes: tuple[int, ...], epochs: int, image_size: int) -> Iterator[str]:
    if len(sizes) >= epochs:
        yield f"training.image_sizes={list(sizes)}: must be fewer than training.epochs={epochs}, or []; the last epochs need data.image_size"
    if max(sizes) > image_size:
        yield f"training.image_sizes={list(sizes)}: must be at most data.image_size={image_size}"


def _check_freezing(valid: Mapping[str, Any]) -> Iterator[str]:
    freeze, first = valid.get("training.freeze"), valid.get("training.unfreeze_epoch")
    if freeze == ():
        yield "training.freeze=[]: must be none, backbone, or names of modules"
    if first and freeze == "none":
        yield f"training.unfreeze_epoch={first}: needs training.freeze=backbone, or names of modules; nothing is frozen"
    if first and first > valid.get("training.epochs", first):
        yield f"training.unfreeze_epoch={first}: must be at most training.epochs={valid['training.epochs']}"


def _check_halvings(widths: tuple[int, ...], patch: int, stride: int, image_size: int) -> Iterator[str]:
    most = max(0, (image_size - patch) // stride + 1).bit_length() - 1  # blocks that leave at least one pixel
    if not 1 <= len(widths) <= most:
        yield (
            f"model.widths={list(widths)}: must be 1 to {counted(most, 'width')}, because every block halves the image of "
            f"{image_size}x{image_size}"
        )
