"""Imports point one way, and no room grows too large."""

import ast

import pytest

from conftest import ROOT

PACKAGE = ROOT / "src" / "experiments"
ORDER = [
    ["config"],
    ["command_line", "memory", "parsing", "provenance"],
    ["composition", "data", "devices", "models", "optimization", "schedules"],
    ["evaluation", "learning"],
    ["training"],
    ["checkpoint", "learning_rate"],
    ["identity", "figures", "terminal", "serving", "store"],
    ["exporting", "runs"],
    ["page", "tracking"],
    ["report", "untracked"],
    ["prediction", "explanation", "exploration", "retesting"],
    ["experiment"],
    ["sweep"],
    ["notebook", "benchmark"],
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def room(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "experiments":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    own = room(file)
    wrong = [name for name in imported(file) if name != own and LEVEL[name] >= LEVEL[own]]
    assert not wrong


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_few_rooms_know_mlflow(file):
    modules = [
        name
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    ]
    assert file.name in ("tracking.py", "store.py", "exporting.py", "runs.py", "serving.py", "parent.py") or not any(
        name.split(".")[0] == "mlflow" for name in modules
    )
