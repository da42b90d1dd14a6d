"""The formats of exported networks. Imports nothing slow, because the command line lists them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from experiments.config import UserError
from experiments.config.defaults import default

ONNX = ("onnx", "onnxruntime", "onnxscript")
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {  # name: (ending of the file, packages that write and run it)
    "onnx": (".onnx", ONNX),
    "onnx-int8": (".int8.onnx", ONNX),
    "pt2": (".pt2", ()),
}
TOLERANCE = 0.01  # accuracy on the validation pictures that a file may lose; without the option also one picture


def check_packages(form: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        UserError: they are not; the message has the command that installs them.
    """
    missing = [name for name in FORMATS[form][1] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format {form}: needs {', '.join(missing)}: pip install -e '.[export]'")


def check_output(form: str, output: Path | None) -> None:
    """Check the name of the file before anything is loaded.

    Raises:
        UserError: it has another ending than the format, it is a folder, or its folder is a file.
    """
    if output is None:
        return
    ending = Path(f"network{FORMATS[form][0]}").suffix
    if output.suffix != ending:
        raise UserError(f"--output {output}: must end with {ending}")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; add a file name")
    there = next(folder for folder in output.absolute().parents if folder.exists())
    if not there.is_dir():
        raise UserError(f"--output {output}: {there} is not a folder")


def default_output(form: str, run_id: str) -> Path:
    """Where the file is written if no other place was given."""
    return Path(default("outputs")) / "exports" / f"{run_id[:8]}{FORMATS[form][0]}"
