"""Nothing of somebody else's run is run as code, and what is damaged is named."""

import contextlib
import io
import json
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml

from experiments.analysis.evaluate_run import evaluate_run
from experiments.config import UserError
from experiments.runs.finished import load_run

SECRET = "geheim1"


class Payload:
    """A pickle of it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture
def stranger(finished, tmp_path, monkeypatch):
    """A copy of the finished run's project, in whose folder its user works."""
    for name in ("mlflow.db", "mlruns"):
        copy = shutil.copytree if (finished[0] / name).is_dir() else shutil.copy
        copy(finished[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def load(folder, **options):
    return load_run(uri=f"sqlite:///{folder}/mlflow.db", **options)


def file_of(folder, name):
    (found,) = folder.glob(f"mlruns/**/{name}")
    return found


def change(folder, name, edit):
    """Edit the values of a YAML file of the run."""
    file = file_of(folder, name)
    values = yaml.safe_load(file.read_text())
    edit(values)
    file.write_text(yaml.safe_dump(values))


def rewrite(folder, edit, **options):
    """Leave only the exported network, as earlier versions did, and edit the content of its archive: {name: bytes}."""
    file_of(folder, "weights.safetensors").unlink()
    file = file_of(folder, "model.pt2")
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    edit(content)
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def edit_json(name, edit):
    def edited(content):
        values = json.loads(content[name])
        edit(values)
        content[name] = json.dumps(values).encode()

    return edited


MODEL, TABLE = "model/models/model.json", "model/data/weights/model_weights_config.json"
SIZES = "Integer(__import__('pathlib').Path('marker').touch() or 2)"


def nodes(values):
    return values["graph_module"]["graph"]["nodes"]


def first_weight(values):
    return next(iter(values["config"].values()))


def sample_inputs(content):
    saved = io.BytesIO()
    torch.save(((Payload("marker"),), {}), saved)
    content["model/data/sample_inputs/model.pt"] = saved.getvalue()


def symbolic_size(values):
    found = [size for value in values["graph_module"]["graph"]["tensor_values"].values() for size in value["sizes"]]
    next(size for size in found if "as_expr" in size)["as_expr"]["expr_str"] = SIZES


def pickled_weight(content):
    content["model/data/weights/weight_0"] = pickle.dumps(Payload("marker"))
    edit_json(TABLE, lambda values: first_weight(values).update(use_pickle=True))(content)


def custom_object(content):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    content["model/data/constants/model_constants_config.json"] = json.dumps({"config": {"x": entry}}).encode()
    content["model/data/constants/opaque_obj_0"] = pickle.dumps(Payload("marker"))


def tree_of_a_module(values):
    context = json.dumps({"__enum__": True, "fqn": "evil:Net", "name": "x"})
    tree = {"type": "builtins.dict", "context": context, "children_spec": []}
    values["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, tree])


REFUSED = {
    "a size": (edit_json(MODEL, symbolic_size), "it has the size"),
    "a call": (edit_json(MODEL, lambda values: nodes(values)[0].update(target="torch.os.system")), "torch.os.system"),
    "a file": (
        edit_json(MODEL, lambda values: nodes(values)[0].update(target="torch.ops.aten.from_file.default")),
        "from_file",
    ),
    "a name": (edit_json(MODEL, lambda values: nodes(values)[0].update(name="a\nimport os")), "it has the name"),
    "a tree": (edit_json(MODEL, tree_of_a_module), "plain containers"),
    "a pickled weight": (pickled_weight, "is pickled"),
    "an object": (custom_object, "is pickled"),
    "no graph": (lambda content: content.pop(MODEL), "it lacks"),
    "a list": (lambda content: content.update({TABLE: b"[[[]]]"}), "is damaged"),
    "a deep list": (lambda content: content.update({MODEL: b"[" * 100_000}), "is damaged"),
    "another file": (
        edit_json(TABLE, lambda values: first_weight(values).update(path_name="../../../config.yaml")),
        "lacks",
    ),
    "another shape": (
        edit_json(TABLE, lambda values: first_weight(values)["tensor_meta"].update(sizes=[{"as_int": 1 << 40}])),
        "has 4 strides",
    ),
    "a huge weight": (
        edit_json(
            TABLE,
            lambda values: first_weight(values)["tensor_meta"].update(
                sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 0}]
            ),
        ),
        "does not fit",
    ),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_an_exported_network_with_more_than_tensor_operations_is_refused(attack, stranger):
    edit, reason = REFUSED[attack]
    (stranger / "evil.py").write_text("open('marker', 'w')")
    rewrite(stranger, edit)
    with pytest.raises(UserError, match=r"run [0-9a-f]{32}: data/model.pt2 cannot be used: .*") as error:
        load(stranger)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not (stranger / "marker").exists()


def test_compressed_archives_are_refused(stranger):
    rewrite(stranger, lambda content: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"model\.pt2 cannot be used: it has compressed files"):
        load(stranger)


def guards(values):
    values["guards_code"] = ["open('marker', 'w') or True"]


LEFT_OUT = {
    "sample inputs": sample_inputs,
    "guards": edit_json(MODEL, guards),
    "another file": lambda content: content.update({"model/extra/x.pkl": pickle.dumps(Payload("marker"))}),
    "a path": lambda content: content.update({"../../marker": b""}),
    "nothing": lambda content: None,
}


@pytest.mark.parametrize("attack", LEFT_OUT)
def test_what_an_exported_network_does_not_need_is_not_read(attack, stranger, finished):
    rewrite(stranger, LEFT_OUT[attack])
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    assert torch.equal(load(stranger).logits(images), load(finished[0]).logits(images))
    assert not (stranger / "marker").exists()


def test_the_payloads_work_where_a_run_is_trusted(stranger):
    """Otherwise the tests above would prove nothing."""
    rewrite(stranger, sample_inputs)
    with contextlib.suppress(UserError):  # an open file is no input
        load(stranger, trust=True)
    assert (stranger / "marker").exists()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan"), "warm"])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature, stranger):
    file = file_of(stranger, "MLmodel")
    described = yaml.safe_load(file.read_text())
    described["metadata"]["temperature"] = temperature
    file.write_text(yaml.safe_dump(described))
    with pytest.raises(UserError, match="MLmodel is damaged: its temperature is not a positive number"):
        load(stranger)


def test_weights_of_another_shape_are_refused_before_memory_is_taken(stranger):
    change(
        stranger, "config.yaml", lambda values: values["model"].update(filters=4096, dense_width=65536, kernel_size=9)
    )
    found = load(stranger)
    assert sum(parameter.numel() for parameter in found.model.parameters()) < 1_000_000


MODULE = """
from pathlib import Path
from torch import nn
from experiments.data import Source

Path("marker").touch()

class Net(nn.Module):
    def __init__(self, image_shape, classes):
        super().__init__()

class Data(Source):
    def listing(self):
        return ()
    def read(self, listing, seed):
        return ()
"""


@pytest.mark.parametrize("target", ["evil.Net", "os.system", "antigravity.Net", "experiments.config.errors.UserError"])
def test_a_network_that_a_configuration_names_is_not_imported(target, stranger, caplog):
    (stranger / "evil.py").write_text(MODULE)
    change(stranger, "config.yaml", lambda values: values["model"].update(_target_=target))
    images = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    assert load(stranger).logits(images).shape == (2, 10)  # by the exported network
    assert "its logged model is used" in caplog.text
    assert not (stranger / "marker").exists() and not {"evil", "antigravity"} & sys.modules.keys()


def test_a_data_source_that_a_configuration_names_is_not_imported(stranger):
    (stranger / "evil.py").write_text(MODULE)
    change(stranger, "config.yaml", lambda values: values["data"].update(_target_="evil.Data", name="evil"))
    found = load(stranger)
    for use in (found.splits, lambda: evaluate_run(found, None, [], "all")):
        with pytest.raises(UserError, match=r"evil\.Data, whose source is not the recorded one; --trust imports it"):
            use()
    assert not (stranger / "marker").exists()
    with pytest.raises(ValueError):  # it has no images
        load(stranger, trust=True).splits()
    assert (stranger / "marker").exists() and sys.modules.pop("evil")


def test_nothing_in_a_configuration_is_resolved(stranger, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    names = {"run_name": "${oc.env:TOKEN}", "experiment": "${oc.decode:${oc.env:TOKEN}}"}
    change(stranger, "config.yaml", lambda values: values["tracking"].update(names))
    found = load(stranger)
    assert found.config.tracking.run_name == "${oc.env:TOKEN}" and SECRET not in str(found.config)
    evaluate_run(found, None, ["data.seed=${oc.decode:'7'}"], "validation")
    leaks = [file for file in stranger.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert not leaks


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 9])


def with_tag(file):
    file.write_bytes(b"x: !!python/object/apply:os.system ['touch marker']\n" + file.read_bytes())


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut off": cut,
    "a list": lambda file: file.write_text("[1, 2]"),
    "a tag": with_tag,
    "not text": lambda file: file.write_bytes(b"\xff\x00" * 99),
    "nested": lambda file: file.write_text("[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.yaml", "MLmodel", "weights.safetensors"])
def test_a_damaged_file_of_a_run_is_named(name, damage, stranger):
    DAMAGE[damage](file_of(stranger, name))
    with pytest.raises(UserError, match=rf"run [0-9a-f]{{32}}: (data/)?{name}"):
        load(stranger)
    assert not (stranger / "marker").exists()


def test_a_configuration_that_would_fill_the_memory_is_refused(stranger):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = file_of(stranger, "config.yaml")
    file.write_text(file.read_text() + "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"config\.yaml has|config\.yaml cannot be used: it has more than"):
        load(stranger)


def test_a_damaged_database_is_named(stranger):
    file = stranger / "mlflow.db"
    content = bytearray(file.read_bytes())
    for page in range(3, len(content) // 4096):  # the first ones have the schema
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"mlflow\.db"):
        load(stranger)
