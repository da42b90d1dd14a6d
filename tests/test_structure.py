"""Imports point one way, and no file, function or folder grows too large."""

import ast

import pytest

from conftest import ROOT

PACKAGE = ROOT / "src" / "experiments"
ALLOWED = {
    "config": (),
    "files": ("config",),
    "models": ("config", "files"),
    "data": ("config", "files"),
    "training": ("config", "files", "models", "data"),
    "runs": ("config", "files", "models", "data", "training"),
    "reports": ("config", "models", "data", "training"),
    "comparison": ("config", "runs", "reports"),
    "analysis": ("config", "models", "data", "training", "runs", "reports"),
    "experiment": ("config", "models", "data", "training", "runs", "reports"),
    "sweep": ("config", "files", "runs", "reports", "comparison", "experiment"),
    "notebook": ("config", "models", "data", "training", "runs", "reports", "analysis", "experiment"),
    "__init__": ("notebook",),
}
COMMANDS = {"train.py": ("config", "experiment", "sweep"), "scripts": tuple(set(ALLOWED) - {"sweep", "__init__"})}
MLFLOW = (
    *(f"runs/{name}.py" for name in ("delivery", "store", "evaluations", "data_sets", "finished", "export", "serving")),
    "comparison/loading.py",
    "sweep/parent_run.py",
)
WITHOUT_TORCH = (
    "config/",
    "files/",
    "data/sources/",
    *(f"data/{name}.py" for name in ("images", "pixels", "loading", "splitting", "decoding", "finding")),
)
FILE_LINES, FUNCTION_LINES, MODULES_AT_THE_ROOT = 250, 50, 4

FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [ROOT / "train.py", *sorted((ROOT / "scripts").rglob("*.py"))]


def name(file):
    return file.relative_to(PACKAGE if file.is_relative_to(PACKAGE) else ROOT).as_posix()


def imports(file, type_checking=True):
    """The dotted name of everything that a file imports, also inside functions: experiments.runs.store.connect."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    if not type_checking:
        blocks = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        left_out = {id(inner) for block in blocks for inner in ast.walk(block)}
        nodes = [node for node in nodes if id(node) not in left_out]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def packages(file):
    """The packages of ours that a file imports."""
    return {dotted.split(".")[1] for dotted in imports(file) if dotted.startswith("experiments.")}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_package_imports_what_the_table_allows(file):
    package = name(file).split("/")[0].removesuffix(".py")
    assert packages(file) - {package} <= set(ALLOWED[package])


@pytest.mark.parametrize("file", SCRIPTS, ids=name)
def test_a_command_imports_what_the_table_allows(file):
    assert packages(file) <= set(COMMANDS[name(file).split("/")[0]])


def test_the_table_has_no_circles():
    ready = set()
    for package, allowed in ALLOWED.items():
        assert set(allowed) <= ready
        ready.add(package)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_few_files_know_mlflow(file):
    assert name(file) in MLFLOW or not any(
        dotted.split(".")[0] == "mlflow" for dotted in imports(file, type_checking=False)
    )


@pytest.mark.parametrize("file", [file for file in FILES if name(file).startswith(WITHOUT_TORCH)], ids=name)
def test_configuration_and_images_do_without_torch(file):
    assert not any(dotted.split(".")[0] == "torch" for dotted in imports(file, type_checking=False))


@pytest.mark.parametrize("file", [*FILES, *SCRIPTS], ids=name)
def test_no_file_or_function_is_too_long(file):
    text = file.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = {node.name for node in functions if node.end_lineno - node.lineno + 1 > FUNCTION_LINES}
    assert not long
    assert len(text.splitlines()) <= FILE_LINES


def test_few_modules_at_the_root():
    assert len(list(PACKAGE.glob("*.py"))) <= MODULES_AT_THE_ROOT
