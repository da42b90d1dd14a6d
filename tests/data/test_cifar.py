"""CIFAR's files: read, checked, and never run."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.config import UserError
from experiments.data import Images
from experiments.data.splitting import split
from samples import answer, digest_of, load_elsewhere, splits_of


@pytest.fixture
def cifar_files(cifar_root, here):
    """The data set in `here`, where a test may replace its files; the cache is there as well."""
    copy = here / "cifar-10-batches-py"
    copy.mkdir()
    for file in (cifar_root / "cifar-10-batches-py").iterdir():
        (copy / file.name).hardlink_to(file)
    yield copy
    shutil.rmtree(here / "outputs", ignore_errors=True)  # 184 MB


def replace(file, content):
    file.unlink()  # it is linked to that of all tests
    file.write_bytes(content)


def test_cifar_has_its_sizes_and_shares_no_image(cifar_root, cifar_files):
    splits = splits_of("data.root=.")
    assert [len(part) for part in splits.parts().values()] == [40_000, 10_000, 10_000]
    seen = np.concatenate([part.pixel_hashes() for part in splits.parts().values()])
    assert len(np.unique(seen)) == 60_000
    content = pickle.loads((cifar_root / "cifar-10-batches-py/test_batch").read_bytes())
    assert np.array_equal(splits.test.pixels[7].ravel(), content[b"data"][7])
    assert splits.test.labels[7] == content[b"labels"][7] and splits.classes[3] == "class3"


BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.mark.slow
def test_cifar_is_decoded_once_and_again_when_a_file_changes(cifar_files):
    contents = [pickle.loads((cifar_files / name).read_bytes()) for name in (*BATCHES, "test_batch")]
    pixels = np.concatenate([content[b"data"] for content in contents]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([content[b"labels"] for content in contents])
    classes = tuple(f"class{number}" for number in range(10))
    train, validation = split(Images(pixels[:50_000], labels[:50_000], classes), 10_000, "random", 1, "key")
    parts = ((pixels[part], labels[part], classes) for part in (train, validation, slice(50_000, None)))
    expected = digest_of(*parts)
    assert splits_of("data.root=.").digest == expected

    def inodes():
        return {file.stat().st_ino for file in Path("outputs/cache").glob("*.npy")}

    made = inodes()
    assert answer(load_elsewhere("data.root=."))[0] == expected and inodes() == made

    file = cifar_files / "data_batch_3"
    state = file.stat()
    replace(file, bytes(state.st_size))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UserError, match="data_batch_3"):
        splits_of("data.root=.")


class Evil:
    def __reduce__(self):
        return (print, ("code of a pickle ran",))


def python_2_array(count):
    """As in the official files: written by Python 2, whose strings are bytes and whose numpy had another name."""
    pickled = pickle.dumps({b"data": np.zeros((count, 3072), dtype=np.uint8), b"labels": [0] * count}, protocol=2)
    return pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_a_pickle_runs_no_code(cifar_files, capsys):
    replace(cifar_files / "test_batch", pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"test_batch.*asks for .*print"):
        splits_of("data.root=.")
    assert "ran" not in capsys.readouterr().out


def test_the_old_name_of_numpys_module_is_known(cifar_files):
    replace(cifar_files / "test_batch", python_2_array(10_000))
    assert len(splits_of("data.root=.").test) == 10_000


@pytest.mark.parametrize(
    "content",
    [
        python_2_array(9_999),
        python_2_array(10_000)[:-5000],
        b"",
        pickle.dumps([1]),
        pickle.dumps({b"data": np.zeros((10_000, 3072), dtype=np.uint8), b"labels": [10] * 10_000}),
        pickle.dumps({b"data": np.zeros((10_000, 3072), dtype=np.float32), b"labels": [1] * 10_000}),
    ],
    ids=["count", "cut", "empty", "list", "labels", "floats"],
)
@pytest.mark.slow
def test_a_broken_file_is_named(cifar_files, content):
    replace(cifar_files / "test_batch", content)
    with pytest.raises(UserError, match="test_batch"):
        splits_of("data.root=.")
