"""Plain values -> `Config`, with every mistake at once.

The hints of the dataclasses in `config` say what fits; `_cross_checks` holds what concerns several keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from experiments.config import (
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    SOURCES,
    TRAINING_IMAGES,
    Config,
    Data,
    Model,
    Optimizer,
    Schedule,
    UserError,
    feature_size,
)


def parse(composed: Mapping[str, Any]) -> Config:
    """Check a composed configuration (plain containers, interpolations resolved).

    Raises:
        UserError: listing every mistake, a line each, with key, value and what would be right.
    """
    parser = _Parser()
    config = parser.read(Config, composed, "")
    problems = parser.problems + list(_cross_checks(parser.valid))
    if problems:
        raise UserError("\n".join(problems))
    return config


class _Parser:
    """Reads plain containers into dataclasses; collects problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.valid: dict[str, Any] = {}  # dotted key -> value that passed its own check

    def read(self, cls: type, values: Mapping[str, Any], prefix: str) -> Any:
        hints = get_type_hints(cls, include_extras=True)
        fields = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in fields:
                self.problems.append(unknown_key(prefix + str(key), [prefix + field for field in fields]))
        arguments = {}
        for name in fields:
            key = prefix + name
            if values.get(name, "???") == "???":  # OmegaConf's mark for a value that has to be given
                self.problems.append(f"{key} is missing: set {key}=...")
            else:
                arguments[name] = self.value(hints[name], values[name], key)
        complete = len(arguments) == len(fields) and not any(value is _INVALID for value in arguments.values())
        return cls(**arguments) if complete else _INVALID

    def value(self, hint: Any, value: Any, key: str) -> Any:
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                return self.refuse(key, value, f"a group of keys, for example {key}={{...}}")
            return self.section(hint, value, key)
        if get_origin(hint) is tuple:
            return self.sequence(get_args(hint), value, key)
        fitting = _fit(hint, value)
        if fitting is _INVALID:
            return self.refuse(key, value, describe(hint))
        self.valid[key] = fitting
        return fitting

    def sequence(self, hints: tuple[Any, ...], value: Any, key: str) -> Any:
        any_length = hints[-1] is Ellipsis
        if not isinstance(value, list) or (not any_length and len(value) != len(hints)):
            return self.refuse(key, value, "a list" if any_length else f"a list of {len(hints)}")
        item_hints = [hints[0]] * len(value) if any_length else hints
        items = [self.value(hint, item, f"{key}[{i}]") for i, (hint, item) in enumerate(zip(item_hints, value))]
        if any(item is _INVALID for item in items):
            return _INVALID
        self.valid[key] = tuple(items)
        return self.valid[key]

    def section(self, hint: type, value: Mapping[str, Any], key: str) -> Any:
        """A section whose class depends on its `name` or `_target_`, or a plain one."""
        if hint is Model:
            target = value.get("_target_")
            parameters = {name: item for name, item in value.items() if name != "_target_"}
            if not isinstance(target, str) or "." not in target:
                return self.refuse(f"{key}._target_", target, "the dotted path of a network's class")
            if target in MODELS and self.read(MODELS[target], parameters, f"{key}.") is _INVALID:
                return _INVALID
            return Model(target, parameters)
        families: dict[type, Mapping[str, type]] = {Data: SOURCES, Optimizer: OPTIMIZERS, Schedule: SCHEDULES}
        if choices := families.get(hint):
            if value.get("name") not in choices:
                return self.refuse(f"{key}.name", value.get("name"), f"one of {', '.join(choices)}")
            hint = choices[value["name"]]
        return self.read(hint, value, f"{key}.")

    def refuse(self, key: str, value: Any, wanted: str) -> Any:
        self.problems.append(f"{key}={_show(value)}: must be {wanted}")
        return _INVALID


_INVALID = object()


def _fit(hint: Any, value: Any) -> Any:
    """The value as the hint wants it (an int serves as a float), or _INVALID."""
    if get_origin(hint) in (Union, types.UnionType):
        fits = (_fit(option, value) for option in get_args(hint))
        return next((fit for fit in fits if fit is not _INVALID), _INVALID)
    if get_origin(hint) is Annotated:
        base, allowed = get_args(hint)[:2]
        fit = _fit(base, value)
        return fit if fit is not _INVALID and fit in allowed else _INVALID
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _INVALID
    if hint is float and type(value) is int:
        return float(value)
    if hint is str and type(value) in (int, float):  # a class called 3 in YAML is a number
        return str(value)
    return value if type(value) is hint or (value is None and hint is type(None)) else _INVALID


def describe(hint: Any) -> str:
    """What a hint wants, in the user's words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint))
    if get_origin(hint) is Annotated:
        base, detail = get_args(hint)[:2]
        return f"{describe(base)} {detail}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(hint))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names[hint]


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    group, _, end = key.rpartition(".")
    beside = {name.removeprefix(f"{group}."): name for name in known if group and name.startswith(f"{group}.")}
    anywhere = {name.rpartition(".")[2]: name for name in known}  # the right name at the wrong place: filters
    first = (end, beside, 0.5) if beside else (key, dict(zip(known, known)), 0.6)
    for word, names, cutoff in (first, (end, anywhere, 0.7)):
        if nearest := difflib.get_close_matches(word, names, n=1, cutoff=cutoff):
            return f"{key}: there is no such key; did you mean {names[nearest[0]]}?"
    hint = f"{group} has {', '.join(beside)}" if beside else "python train.py --help lists the keys"
    return f"{key}: there is no such key; {hint}"


def _show(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_STORE = re.compile(r"sqlite:///.|https?://.|(postgresql|mysql|mssql)(\+\w+)?://.|databricks")


def _cross_checks(valid: Mapping[str, Any]) -> Iterator[str]:
    """Checks over several keys, each made as soon as the keys it needs are valid by themselves."""

    def get(*keys: str) -> list[Any] | None:
        return [valid[key] for key in keys] if all(key in valid for key in keys) else None

    if values := get("model.kernel_size", "model.blocks", "data.image_size"):
        yield from _check_kernel(*values)
    if values := get("model.widths", "model.patch", "model.stride", "data.image_size"):
        widths, patch, stride, image_size = values
        yield from _check_halvings(widths, patch, stride, min((image_size, *valid.get("training.sides", ()))))
    if values := get("data.name", "data.validation_size"):
        name, size = values
        total = TRAINING_IMAGES.get(name)
        if total and size >= total:
            yield f"data.validation_size={size}: must be at most {total - 1}; {name} has {total:,} training images"
    if (values := get("data.name", "data.image_size")) and values[0].startswith("cifar") and values[1] != 32:
        yield f"data.image_size={values[1]}: must be 32 for {values[0]}, whose pictures are 32x32"
    if (values := get("augment.translate", "data.image_size")) and values[0] >= values[1]:
        yield f"augment.translate={values[0]}: must be less than the {values[1]} pixels of a picture's side"
    if (values := get("augment.cutout", "data.image_size")) and values[0] > values[1]:
        yield f"augment.cutout={values[0]}: must be at most the {values[1]} pixels of a picture's side"
    if (values := get("training.sides", "training.epochs", "data.image_size")) and values[0]:
        yield from _check_sides(*values)
        if "model.dense_width" in valid:
            yield f"training.sides={list(values[0])}: must be [] for a network with a dense layer; model=fastnet takes any"
    if (values := get("optimizer.nesterov", "optimizer.momentum")) and values[0] and values[1] == 0:
        yield "optimizer.nesterov=true: needs optimizer.momentum above 0"
    if (values := get("schedule.warmup", "training.epochs")) and values[0] >= values[1]:
        yield f"schedule.warmup={_show(values[0])}: must be below training.epochs={values[1]}"
    if "sweep.objectives" in valid and len(set(valid["sweep.objectives"])) < max(1, len(valid["sweep.objectives"])):
        yield f"sweep.objectives={list(valid['sweep.objectives'])}: must be one or several, none twice"
    if (values := get("sweep.objectives[0]")) and not values[0].startswith("val/"):
        yield f"sweep.objectives[0]={values[0]}: the first must be val/accuracy or val/loss; the winner goes by it"
    if (values := get("tracking.experiment")) and not values[0].strip():
        yield "tracking.experiment=: must be a name"
    if (values := get("tracking.uri")) and values[0] and not _STORE.match(values[0]):
        yield f"tracking.uri={values[0]}: must be sqlite:///FILE.db, http://HOST:PORT, or the address of a database"


def _check_kernel(kernel: int, blocks: int, image_size: int) -> Iterator[str]:
    if feature_size(image_size, kernel, blocks) >= 1:
        return
    largest = max((k for k in range(1, image_size + 1) if feature_size(image_size, k, blocks) >= 1), default=None)
    if largest is None:
        most = next(b for b in range(blocks, -1, -1) if feature_size(image_size, 1, b) >= 1)
        yield f"model.blocks={blocks}: too many for a picture of {image_size}x{image_size}; must be at most {most}"
    else:
        yield (
            f"model.kernel_size={kernel}: too large for a picture of {image_size}x{image_size} and "
            f"{blocks} blocks; the largest that fits is {largest}"
        )


def _check_sides(sides: tuple[int, ...], epochs: int, image_size: int) -> Iterator[str]:
    if len(sides) >= epochs:
        yield f"training.sides={list(sides)}: must be fewer than training.epochs={epochs}, or []; the last see whole pictures"
    if max(sides) > image_size:
        yield f"training.sides={list(sides)}: must be at most the {image_size} pixels of a picture's side"


def _check_halvings(widths: tuple[int, ...], patch: int, stride: int, image_size: int) -> Iterator[str]:
    most = max(0, (image_size - patch) // stride + 1).bit_length() - 1  # blocks that leave at least a pixel
    if not 1 <= len(widths) <= most:
        yield (
            f"model.widths={list(widths)}: must be 1 to {most} widths, because every block halves the picture of "
            f"{image_size}x{image_size}"
        )
