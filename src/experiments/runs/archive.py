"""An exported network, `model.pt2`, read without running code that is in it.

archive = Archive(content)
archive.weights()                 # tensors by name
archive.program(images)           # an ExportedProgram

`torch.export.load` unpickles the example inputs, and evaluates shapes and guards as Python. So it never sees the file: it reads
a new archive of the raw tensors and of a graph in which only operations on tensors are allowed. Everything else is left out if
the network computes the same without it, and refused if not.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from experiments.runs.graph import checked_graph

MODEL, EXAMPLE, WEIGHTS, CONSTANTS = "models/model.json", "data/sample_inputs/model.pt", "weights", "constants"
TEXTS = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", ".data/version": b"6\n"}
STRIDED = 7  # torch._export.serde.schema.Layout
DTYPES = {  # torch._export.serde.schema.ScalarType
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


class Archive:
    """The content of a `.pt2` file.

    Raises:
        ValueError: it is damaged, or has what only code could build; also raised by the methods.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError) as error:
            raise ValueError(f"it is damaged ({error})") from None
        entries = self._zip.infolist()
        self._root = entries[0].filename.partition("/")[0] if entries else ""
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("it has two files of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise ValueError("it has compressed files")  # what a file claims to contain could be of any size

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names."""
        return {name: _view(data, entry) for name, (entry, data) in self._tensors(WEIGHTS).items()}

    def program(self, images: Tensor) -> torch.export.ExportedProgram:
        """The exported network; `images` are an example of its input."""
        described = _guarded(lambda: checked_graph(json.loads(self._read(MODEL))))
        example, copy = io.BytesIO(), io.BytesIO()
        torch.save(((images,), {}), example)
        with zipfile.ZipFile(copy, "w") as new:

            def put(name: str, content: bytes) -> None:
                new.writestr(f"model/{name}", content)

            for name, text in TEXTS.items():
                put(name, text)
            for folder, prefix in ((WEIGHTS, "weight"), (CONSTANTS, "tensor")):
                self._copy(folder, prefix, put)
            put(MODEL, json.dumps(described).encode())
            put(EXAMPLE, example.getvalue())
        copy.seek(0)
        try:
            return torch.export.load(copy)
        except Exception as error:  # of a graph that is damaged, or of another version of PyTorch
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"PyTorch {torch.__version__} cannot read it ({reason})") from None

    def _copy(self, folder: str, prefix: str, put: Callable[[str, bytes], None]) -> None:
        """Write the tensors of a folder, and the table of them."""
        files: dict[str, str] = {}
        table: dict[str, Any] = {}
        for name, (entry, data) in self._tensors(folder).items():
            if entry["path_name"] not in files:
                files[entry["path_name"]] = f"{prefix}_{len(files)}"
                put(f"data/{folder}/{files[entry['path_name']]}", data)
            _view(data, entry)  # checks the numbers
            kept = {"path_name": files[entry["path_name"]], "is_param": bool(entry["is_param"]), "use_pickle": False}
            table[name] = kept | {"tensor_meta": _plain_meta(entry["tensor_meta"])}
        put(f"data/{folder}/model_{folder}_config.json", json.dumps({"config": table}).encode())

    def _tensors(self, folder: str) -> dict[str, tuple[Mapping[str, Any], bytes]]:
        """(entry in the table, content of its file) of each tensor of a folder, by name."""

        def read() -> dict[str, tuple[Mapping[str, Any], bytes]]:
            table = json.loads(self._read(f"data/{folder}/model_{folder}_config.json"))["config"]
            if pickled := next((name for name, entry in table.items() if entry["use_pickle"] is not False), None):
                raise ValueError(f"{pickled[:80]!r} is pickled")
            paths = {str(entry["path_name"]) for entry in table.values()}
            files = {path: self._read(f"data/{folder}/{path}") for path in paths}
            return {str(name): (entry, files[str(entry["path_name"])]) for name, entry in table.items()}

        return _guarded(read)

    def _read(self, name: str) -> bytes:
        return self._zip.read(f"{self._root}/{name}")


def _guarded(read: Callable[[], Any]) -> Any:
    """What `read` returns; a ValueError whatever of the content it does not expect."""
    try:
        return read()
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is damaged ({error})") from None
    except KeyError as error:
        raise ValueError(f"it lacks {str(error)[:200]}") from None
    except (AttributeError, TypeError, LookupError, RecursionError, EOFError, NotImplementedError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


def _view(data: bytes, entry: Mapping[str, Any]) -> Tensor:
    """The tensor that an entry describes, in the bytes of its file."""

    def view() -> Tensor:
        meta = _plain_meta(entry["tensor_meta"])
        dtype = DTYPES[meta["dtype"]]
        sizes, strides = ([one["as_int"] for one in meta[key]] for key in ("sizes", "strides"))
        if len(sizes) != len(strides):
            raise ValueError(f"a tensor of shape {tuple(sizes)} has {len(strides)} strides")
        offset, count = meta["storage_offset"]["as_int"], math.prod(sizes)
        if count == 0:
            return torch.empty(sizes, dtype=dtype)
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides))
        if max(count, last + 1) * dtype.itemsize > len(data):
            raise ValueError(f"a tensor of shape {tuple(sizes)} does not fit its {len(data):,} bytes")
        whole = torch.frombuffer(bytearray(data), dtype=dtype, count=len(data) // dtype.itemsize)
        return whole.as_strided(sizes, strides, offset)

    tensor: Tensor = _guarded(view)
    return tensor


def _plain_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a tensor on the CPU, with nothing in it but numbers."""

    def number(value: Any) -> int:
        if type(value) is not int or not 0 <= value < 1 << 48:
            raise ValueError(f"{str(value)[:80]!r} is not a size")
        return value

    def numbers(values: Any) -> list[dict[str, int]]:
        return [{"as_int": number(value["as_int"])} for value in values]

    if meta["layout"] != STRIDED or meta["dtype"] not in DTYPES or meta["device"]["type"] != "cpu":
        raise ValueError("it has a tensor of an unusual kind")
    return {
        "dtype": number(meta["dtype"]),
        "sizes": numbers(meta["sizes"]),
        "requires_grad": meta["requires_grad"] is True,
        "device": {"type": "cpu", "index": None},
        "strides": numbers(meta["strides"]),
        "storage_offset": {"as_int": number(meta["storage_offset"]["as_int"])},
        "layout": STRIDED,
    }
