"""Plain values -> `Config`; all mistakes are reported at once.

The type hints of the dataclasses in `config` define the valid values; `cross_checks` checks keys that depend on others.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from experiments.config.constraints import OneOf, without_marks
from experiments.config.cross_checks import cross_checks, show_value
from experiments.config.data import SOURCES, CustomSourceSettings, DataSettings
from experiments.config.durations import Lasting
from experiments.config.errors import UserError
from experiments.config.networks import MODELS, ModelSettings, NetworkSettings
from experiments.config.renamed import RENAMED, explain_rename
from experiments.config.schema import FAMILIES, Config
from experiments.config.wording import named

ELSEWHERE = {  # what other programs call a key, where the name is not similar
    "learning_rate": "optimizer.lr",
    "dataset": "data",
    "bs": "training.batch_size",
    "gpus": "device",
}


def parse(composed: Mapping[str, Any]) -> Config:
    """Check a composed configuration (plain containers, interpolations resolved).

    Raises:
        UserError: listing every mistake, one per line, with the key, its value, and the valid values.
    """
    parser = _Parser()
    config = parser.read(Config, composed, "")
    problems = parser.problems + list(cross_checks(parser.valid))
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
            if values.get(name, "???") == "???":  # OmegaConf's mark for a missing value
                self.problems.append(f"{key} is missing: set {key}=...")
            else:
                arguments[name] = self.value(hints[name], values[name], key)
        complete = len(arguments) == len(fields) and not any(value is _INVALID for value in arguments.values())
        return cls(**arguments) if complete else _INVALID

    def value(self, hint: Any, value: Any, key: str) -> Any:
        hint, *_ = without_marks(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                keys = [field.name for field in dataclasses.fields(hint)]
                item = key.endswith("]")  # of a list: its keys are written together
                shown = (
                    "{" + ", ".join(f"{name}: ..." for name in keys) + "}"
                    if item
                    else named([f"{key}.{name}" for name in keys])
                )
                return self.refuse(key, value, f"a group of keys: {shown}")
            return self.section(hint, value, key)
        if get_origin(hint) is Mapping:  # the parameters of a custom source
            return value
        if get_origin(hint) is tuple:
            return self.sequence(get_args(hint), value, key)
        lists = [option for option in get_args(hint) if get_origin(option) is tuple]
        if lists and isinstance(value, list):
            return self.sequence(get_args(lists[0]), value, key)
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
        if hint is ModelSettings:
            target = value.get("_target_")
            weights = value.get("weights")
            parameters = {name: item for name, item in value.items() if name not in ("_target_", "weights")}
            if not _is_dotted(target):
                return self.refuse(f"{key}._target_", target, "the dotted path of a network's class")
            self.valid[f"{key}._target_"] = target
            checked = {"weights": weights} | (
                parameters if target in MODELS else {}
            )  # a custom network's are in its YAML file
            if self.read(MODELS.get(target, NetworkSettings), checked, f"{key}.") is _INVALID:
                return _INVALID
            return ModelSettings(target, parameters, weights)
        if hint is DataSettings:
            return self.source(value, key)
        if choices := FAMILIES.get(hint):
            name = value.get("name")
            if not isinstance(name, str) or name not in choices:
                return self.refuse(f"{key}.name", name, f"one of {', '.join(choices)}")
            hint = choices[name]
            keys = {field.name for field in dataclasses.fields(hint)}
            if keys - value.keys() and value.keys() - keys:  # the keys of another choice
                return self.refuse(f"{key}.name", name, f"chosen by {key}={name}, because its keys are others")
        return self.read(hint, value, f"{key}.")

    def source(self, values: Mapping[str, Any], key: str) -> Any:
        """The section of a data source; a custom one has the keys of all sources, and those of its YAML file."""
        target = values.get("_target_")
        if not _is_dotted(target):
            return self.refuse(f"{key}._target_", target, "the dotted path of a data source's class")
        if target in SOURCES:
            return self.read(SOURCES[target], values, f"{key}.")
        shared = {field.name for field in dataclasses.fields(DataSettings)}
        parameters = {name: item for name, item in values.items() if name not in shared}
        values = {name: item for name, item in values.items() if name in shared} | {"parameters": parameters}
        return self.read(CustomSourceSettings, values, f"{key}.")

    def refuse(self, key: str, value: Any, wanted: str) -> Any:
        if wanted.startswith("text") and type(value) in (int, float):
            wanted += ", in quotes"  # in YAML: on the command line it is read as text
        self.problems.append(f"{key}={show_value(value)}: must be {wanted}")
        return _INVALID


_INVALID = object()


def _is_dotted(target: Any) -> TypeGuard[str]:
    return isinstance(target, str) and "." in target and all(part.isidentifier() for part in target.split("."))


def _fit(hint: Any, value: Any) -> Any:
    """The value, with the type of the hint (an int is accepted as a float), or _INVALID."""
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
    return value if type(value) is hint or (value is None and hint is type(None)) else _INVALID


def describe(hint: Any) -> str:
    """The valid values of a hint, in plain words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint))
    if get_origin(hint) is Annotated:
        base, detail = get_args(hint)[:2]
        return str(detail) if isinstance(detail, OneOf | Lasting) else f"{describe(base)} {detail}"
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return "a list" if items[-1] is Ellipsis else f"a list of {len(items)}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(hint))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names[hint]


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that does not exist, with its new name or the most similar key."""
    if key in RENAMED:
        return explain_rename(key)
    group, _, end = key.rpartition(".")
    if end in ELSEWHERE:
        return f"{key}: there is no such key; did you mean {ELSEWHERE[end]}?"
    beside = {name.removeprefix(f"{group}."): name for name in known if group and name.startswith(f"{group}.")}
    anywhere = {name.rpartition(".")[2]: name for name in known}  # the right name in the wrong group: filters
    first = (end, beside, 0.5) if beside else (key, dict(zip(known, known)), 0.6)
    for word, names, cutoff in (first, (end, anywhere, 0.7)):
        if nearest := difflib.get_close_matches(word, names, n=1, cutoff=cutoff):
            return f"{key}: there is no such key; did you mean {names[nearest[0]]}?"
    hint = f"{group} has {', '.join(beside)}" if beside else "python train.py --help lists the keys"
    return f"{key}: there is no such key; {hint}"
