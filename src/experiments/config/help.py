"""`python train.py --help`: every key with its default and its explanation, read from the YAML files in conf/.

A comment at the end of a key's line, or on the lines directly above it, explains the key. A key without a comment has
that of the file named in `defaults:`. The comment at the top of a file describes the choice.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from experiments.config.arguments import parse_arguments, typed_overrides
from experiments.config.composition import CONF
from experiments.config.errors import UserError
from experiments.config.foreign import mask_passwords
from experiments.config.keys import CHOICES, words
from experiments.config.loading import alternatives, compose_overrides

WIDTH, VALUE_WIDTH = 100, 24  # characters per line, and per default, which is cut
INTRODUCTION = """\
Train an image classifier and record everything about it in MLflow.

  python train.py data=digits                              a first run; nothing to download
  python train.py model.filters=64 optimizer.lr=0.0005     CIFAR-10 with a wider network
  python train.py -m model.filters=16,32,64 seed=1,2,3     nine runs, ranked and compared
  python train.py -m search=cnn                            a search for good settings (Optuna)

The same command again continues an interrupted run, and prints the results of a finished run."""
SWEEPING = {"hydra/sweeper": "basic", "hydra/sweeper/sampler": "tpe", "hydra/sweeper/pruner": "none"}

Explained = dict[str, tuple[str, str]]  # key -> (default, explanation)
Row = tuple[str, str, str]  # key, default, explanation


def show_help() -> None:
    """Print the help and exit, if --help was typed; the help of another configuration file is left to Hydra.

    Raises:
        UserError: if the overrides that were typed cannot be applied.
    """
    arguments = parse_arguments()
    if not arguments.help or arguments.config_name or arguments.config_path:
        return
    first_run = [values[0] for values in alternatives(typed_overrides(arguments), arguments.multirun)]
    composed = compose_overrides(first_run)
    folders = [*([Path(arguments.config_dir)] if arguments.config_dir else []), CONF]
    configuration = mask_passwords(OmegaConf.to_yaml(composed, resolve=arguments.resolve))
    lines = (INTRODUCTION, *help_lines(folders), "\n== Configuration of this command line ==", configuration)
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def help_lines(folders: Sequence[Path]) -> Iterator[str]:
    """The help on all keys and choices; if files have the same name, that in the first of `folders` is used."""
    (_, keys), main = explained(folders, "config"), yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    yield "\n== Keys of a run (key=value) =="
    yield from _table([(key, value, _with_words(key, text)) for key, (value, text) in keys.items()])
    for entry in main["defaults"]:
        for group, default in entry.items() if isinstance(entry, dict) else ():
            yield from _group(folders, group, default, keys=default is not None)
    for group, default in SWEEPING.items():
        yield from _group(folders, group, default, keys=group == "hydra/sweeper")


def _with_words(key: str, text: str) -> str:
    """An explanation with the allowed words, if they come from a table and the explanation has none of them."""
    allowed = words().get(key, ())
    return f"{text}: {', '.join(allowed)}" if allowed and not any(word in text for word in allowed) else text


def explained(folders: Sequence[Path], name: str) -> tuple[str, Explained]:
    """The description of a YAML file (`name`: model/cnn) and its keys, with those of the files that it is based on.

    Raises:
        UserError: if it is not YAML.
    """
    path = next(path for folder in folders if (path := folder / f"{name}.yaml").is_file())
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    header = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    description = " ".join(line.strip("# ") for line in lines[:header] if not line.startswith("# @package"))
    try:
        root = yaml.compose(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {error}") from None
    keys: Explained = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "defaults":
            for parent in [f"{name.rpartition('/')[0]}/{item.value}" for item in value.value]:
                if any((folder / f"{parent}.yaml").is_file() for folder in folders):
                    keys |= explained(folders, parent)[1]
    own = _own_keys(root, [""] * header + lines[header:])
    return description, keys | {key: (value, text or keys.get(key, ("", ""))[1]) for key, value, text in own}


def _own_keys(node: Any, lines: Sequence[str], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, value, comment) for each value below a YAML node; all as written in the file."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        key = f"{prefix}{name.value}"
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        if key in ("defaults", "hydra", *CHOICES):  # the last are set by choosing another file
            continue
        if block and isinstance(value, yaml.MappingNode):
            yield from _own_keys(value, lines, f"{key}.")
            continue
        above = name.start_mark.line
        while above and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        end = name.end_mark if block else value.end_mark
        comments = [*lines[above : name.start_mark.line], lines[end.line][end.column :].partition("#")[2]]
        shown = _shown(value)
        shown = shown if len(shown) <= VALUE_WIDTH else f"{shown[: VALUE_WIDTH - 3]}..."
        yield key, shown, " ".join(comment.strip("# ") for comment in comments).strip()


def _shown(node: Any) -> str:
    """A YAML node on one line."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(_shown(item) for item in node.value)}]"
    if isinstance(node, yaml.MappingNode):
        return f"{{{', '.join(f'{name.value}: {_shown(item)}' for name, item in node.value)}}}"
    return str(node.value) or "''"


def _group(folders: Sequence[Path], group: str, default: str | None, keys: bool) -> Iterator[str]:
    """The choices of a group, with one sentence each.

    With `keys`, their whole descriptions, then the keys that all choices have, then those that some of them have.
    """
    names = sorted({file.stem for folder in folders for file in (folder / group).glob("[!_]*.yaml")})
    choices = {name: explained(folders, f"{group}/{name}") for name in names}
    yield f"\n== {group}=... {f'(default: {default}) ' if default else ''}=="
    described = {name: text if keys else re.split(r"(?<=[.])\s", text)[0] for name, (text, _) in choices.items()}
    yield from _table([(name, "", text) for name, text in described.items()])
    values: dict[tuple[str, str], dict[str, str]] = {}  # (key, explanation) -> {choice: value}
    for name in sorted(names, key=lambda name: name != default):
        for key, (value, text) in choices[name][1].items() if keys else ():
            values.setdefault((f"{group.replace('/', '.')}.{key}", text), {})[name] = value
    parts: dict[tuple[str, ...], list[Row]] = {tuple(names): []}  # choices -> the keys that only they have
    for (key, text), valued in values.items():
        first, *others = dict.fromkeys(valued.values())
        notes = [f"{', '.join(name for name in names if valued.get(name) == other)}: {other}" for other in others]
        row = (key, first, f"{text} ({'; '.join(notes)})".strip() if notes else text)
        parts.setdefault(tuple(sorted(valued)), []).append(row)
    widths = [max((len(row[column]) for rows in parts.values() for row in rows), default=0) for column in (0, 1)]
    for having, rows in parts.items():
        if rows and len(names) > 1:
            yield f" {' or '.join(having) if len(having) < len(names) else 'all'}:"
        yield from _table(rows, widths)


def _table(rows: Sequence[Row], widths: Sequence[int] = ()) -> Iterator[str]:
    """The rows in three columns, of which the last is wrapped."""
    widths = widths or [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, text in rows:
        start = f"  {key:<{widths[0]}}  " + (f"{value:<{widths[1]}}  " if widths[1] else "")
        yield textwrap.fill(text or "-", WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
