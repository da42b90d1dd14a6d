"""An exported file computes what the run computes, is written only then, and needs nothing of this package."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from experiments.analysis import export as exporting
from experiments.analysis.export import check, export
from experiments.analysis.formats import FORMATS, check_packages, default_output
from experiments.analysis.prediction import predict
from experiments.config import UserError
from experiments.config.errors import RunFailed
from experiments.config.loading import compose_config
from experiments.runs.finished import load_run
from samples import paint

onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

ALONE = (  # a Python program, run where this package cannot be imported
    "import runpy, sys; sys.modules['experiments'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module", autouse=True)
def few_calls():
    """The timings need not be exact."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "SECONDS", 0.01)
        yield


def logits_of(path, images):
    """Of a file, as the documentation of its format says; not by this package."""
    if path.suffix == ".pt2":
        with torch.inference_mode():
            return torch.export.load(path).module()(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def about(path):
    if path.suffix == ".pt2":
        files = {"about.json": ""}
        torch.export.load(path, extra_files=files)
        return json.loads(files["about.json"])
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The result of exporting the finished run, by format."""
    folder = tmp_path_factory.mktemp("exported")
    return {form: export(trained, form, folder / f"net{FORMATS[form][0]}", 0.05) for form in FORMATS}


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("count", [1, 2, 7, 297])
def test_a_file_computes_the_logits_of_the_run(form, count, exported, trained, test_images):
    images = test_images.pixels[:count]
    with torch.inference_mode():
        expected = trained.model(torch.from_numpy(np.resize(images, (max(count, 2), 3, 32, 32)))).numpy()[:count]
    assert logits_of(exported[form].path, images) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_the_metadata_says_how_a_file_is_used(form, exported, trained):
    facts = about(exported[form].path)
    assert json.loads(facts["classes"]) == list(trained.classes)
    assert (facts["image_size"], facts["run"]) == ("32", trained.run_id)


@pytest.mark.parametrize("form", FORMATS)
def test_the_figures_are_those_of_the_file(form, exported, trained):
    found, images = exported[form], trained.splits().validation
    values = [torch.as_tensor(logits).softmax(dim=1) for logits in (
        trained.logits(images.pixels) / trained.model.temperature, logits_of(found.path, images.pixels))]  # fmt: skip
    accuracies = [float((value.argmax(dim=1).numpy() == images.labels).mean()) for value in values]
    assert accuracies == pytest.approx([found.run.accuracy, found.file.accuracy])
    assert found.difference == pytest.approx(float((values[0] - values[1]).abs().max()), abs=1e-5)
    assert found.difference < 1e-4 or form == "onnx-int8"
    assert found.bytes == found.path.stat().st_size and found.pictures == 300
    assert min(found.run.alone, found.run.together, found.file.alone, found.file.together) > 0
    assert f"{found.file.accuracy:.4g}" in found.figures and "300 validation pictures" in found.figures


def test_integers_replace_floats_in_all_but_the_normalisation(exported):
    integers, floats = (exported[form].path for form in ("onnx-int8", "onnx"))
    assert integers.stat().st_size < 0.3 * floats.stat().st_size
    graph = onnx.load(integers).graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    before = graph.node[: list(graph.node).index(first)]
    assert {"Cast", "Mul", "Sub"} <= {node.op_type for node in before}  # to floats, times scale, minus shift
    names = {node.output[0]: node for node in graph.node}
    (convolution,) = [node for node in graph.node if node.op_type == "Conv"][:1]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights, scales = (tensors[name] for name in names[convolution.input[1]].input[:2])
    assert weights.data_type == onnx.TensorProto.INT8 and list(scales.dims) == [32]  # a scale per filter
    assert names[convolution.input[0]].op_type == "DequantizeLinear"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_program_that_is_printed_predicts_what_the_run_predicts(form, exported, trained, test_images, tmp_path):
    files = [str(tmp_path / f"{row}.png") for row in range(3)]
    for row, file in enumerate(files):
        Image.fromarray(test_images.pixels[row].transpose(1, 2, 0)).resize((50, 40)).save(file)
    (tmp_path / "classify.py").write_text(exported[form].program)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "classify.py", *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    answers = list(predict(trained, files))
    assert [line[:2] for line in lines] == [[answer.file, answer.top[0][0]] for answer in answers]
    allowed = 0.1 if form == "onnx-int8" else 1e-4
    assert [float(line[2]) for line in lines] == pytest.approx([answer.top[0][1] for answer in answers], abs=allowed)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_worse_is_not_written(form, trained, tmp_path):
    path = tmp_path / f"net{FORMATS[form][0]}"
    path.write_text("the file of yesterday")
    with pytest.raises(RunFailed, match=r"^ +run +file\naccuracy  .*300 validation pictures\n") as caught:
        export(trained, form, path, -0.1)  # it must be better than the run
    assert re.search(r"of 300 validation pictures\), more than --tolerance -0\.1; ", str(caught.value))
    assert str(caught.value).endswith(f"{path} is not written") and str(caught.value).count(str(path)) == 1
    assert path.read_text() == "the file of yesterday" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("lost", "count", "tolerance", "advice"),
    [
        (1, 63, None, ""),
        (2, 63, None, r"\(2 of 63 validation pictures\), more than --tolerance 0.01; --tolerance 0.032 allows it"),
        (1, 63, 0.01, r"\(1 of 63 validation pictures\), more than --tolerance 0.01; --tolerance 0.016 allows it"),
        (1, 63, 0.016, ""),
        (29, 100, 0.29, ""),
        (3, 300, None, ""),
        (4, 300, None, r"\(4 of 300 validation pictures\), more than --tolerance 0.01; --tolerance 0.014 allows it"),
        (-5, 63, 0, ""),
    ],
)
def test_one_picture_of_few_may_be_lost(lost, count, tolerance, advice, exported):
    before, after = (dataclasses.replace(exported["onnx"].run, accuracy=(60 - gone) / count) for gone in (0, lost))
    found = dataclasses.replace(exported["onnx-int8"], pictures=count, run=before, file=after)
    with pytest.raises(RunFailed, match=advice) if advice else contextlib.nullcontext():
        check(found, "onnx-int8", tolerance)


class Louder(nn.Module):
    """The logits of another network, 1 % larger."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return 1.01 * self.network(images)


def test_floats_that_compute_something_else_are_not_written(trained, tmp_path):
    with pytest.raises(RunFailed, match=r"the file computes other probabilities, by up to 0\.00"):
        export(dataclasses.replace(trained, model=Louder(trained.model)), "onnx", tmp_path / "net.onnx", 0.01)
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_message_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"--format onnx: needs onnxscript: pip install -e '\.\[export\]'"):
        check_packages("onnx")
    check_packages("pt2")


NETWORKS = """
from torch import nn
from torchvision.models import resnet, squeezenet1_1


def resnet10(num_classes):
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes)


class Named(nn.Module):
    def __init__(self, image_shape, classes, name):
        super().__init__()
        self.network = {"resnet10": resnet10, "squeezenet1_1": squeezenet1_1}[name](num_classes=classes)

    def forward(self, images):
        return self.network(images)
"""


@pytest.mark.slow
@pytest.mark.numbers
@pytest.mark.parametrize("model", ["fastnet", "resnet10", "squeezenet1_1"])
def test_other_networks(model, tracked, tmp_path, monkeypatch):
    from experiments.experiment import run

    monkeypatch.syspath_prepend(tmp_path)
    for name, start in (("cat", 0), ("dog", 100)):
        paint(tmp_path / "pics", name, 30, start)
    (tmp_path / "zoo.py").write_text(NETWORKS)
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/zoo.yaml").write_text(f"_target_: zoo.Named\nname: {model}\n")
    custom = ["model=zoo", f"hydra.searchpath=[file://{tmp_path}/own]"]
    words = ["model=fastnet", "model.widths=[8,16]"] if model == "fastnet" else custom
    run(
        compose_config(
            [*words, "data=image_folder", "data.root=pics", "data.image_size=32", "training.epochs=1", "threads=1"]
        )
    )
    sys.modules.pop("zoo", None)
    finished = load_run(uri="sqlite:///mlflow.db")
    for form in FORMATS:
        found = export(finished, form, None, 1)
        assert found.path == default_output(form, finished.run_id) and found.path.exists()
        images = finished.splits().test.pixels
        assert logits_of(found.path, images[:1]).shape == (1, 2)
        assert found.difference < (0.2 if form == "onnx-int8" else 1e-4)


@pytest.mark.slow
def test_the_command(finished, command, tmp_path):
    options = ("--uri", f"sqlite:///{finished[0]}/mlflow.db", "--format", "onnx-int8", "--output")
    done = command("scripts/export.py", *options, tmp_path / "net.onnx", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "net.onnx").exists(), done.stderr
    assert "run data=digits" in done.stdout and "300 validation pictures" in done.stdout
    compile(done.stdout[done.stdout.index('"""Print the class') :], "classify.py", "exec")
