"""An override means what was typed: text stays text, and what needs quotes is said with them."""

import sys

import pytest

from experiments.config import UserError
from experiments.config.loading import check_overrides, compose_config
from experiments.config.overrides import as_meant, parse


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tracking.experiment=1.10", "1.10"),
        ("tracking.run_name=1e3", "1e3"),
        ("tracking.run_name=0x10", "0x10"),
        ("tracking.run_name=nan", "nan"),
        ("tracking.run_name=True", "True"),
        ("tracking.run_name=null", None),
        ("data.root='2024_01'", "2024_01"),
        ("data.root=2024_01", "2024_01"),
        ("data.root=bilder/m\u00fcller", "bilder/m\u00fcller"),
        ("data.root=cafe\u0301/\u5199\u771f 1", "cafe\u0301/\u5199\u771f 1"),
        ("data.root=${oc.env:HOME}/\u00fc", "${oc.env:HOME}/\u00fc"),
        ("data.root=C:2024", "C:2024"),
        ("data.urls=[1.10,https://m\u00fcnchen.de/a]", ["1.10", "https://m\u00fcnchen.de/a"]),
        (
            "data.extra=[{path: 2024_01, label: 1.10}, {path: \u00e9 b.png, label: no}]",
            [{"path": "2024_01", "label": "1.10"}, {"path": "\u00e9 b.png", "label": "no"}],
        ),
        ("data.mean=[1,2,3]", [1, 2, 3]),
        ("seed=1_000", 1000),
    ],
)
def test_a_text_is_what_was_typed(typed, meant):
    assert parse(as_meant(typed)).value() == meant
    assert as_meant(as_meant(typed)) == as_meant(typed)


def test_several_texts_are_what_was_typed():
    for typed in ("data.root=2024_01,\u00fc b", "data.root=choice(2024_01,\u00fc b)"):
        values = parse(as_meant(typed)).sweep_iterator()
        assert [getattr(value, "text", value) for value in values] == ["2024_01", "\u00fc b"]


def test_the_folder_that_was_typed_is_read(here):
    for name in ("202401", "2024_01", "b\u00e4ume"):
        (here / name).mkdir()
        config = compose_config(["data=image_folder", f"data.root={name}", "tracking.experiment=1.10"])
        assert (config.data.root, config.tracking.experiment) == (name, "1.10")


@pytest.mark.parametrize("name", ["a=b", "a(b", "a[1]", "[a]", "it's", "a#b", "f(a)", "{a: 1}"])
def test_a_value_that_needs_quotes_is_shown_with_them(name, here, monkeypatch):
    import shlex

    (here / name).mkdir()
    typed = ["data=image_folder", f"data.root={name}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    with pytest.raises(UserError) as caught:
        check_overrides(typed)
    first, command = str(caught.value).split("\n")
    assert first.startswith(f"data.root={name}: this value needs quotes") and "missing" not in first
    python, script, *corrected = shlex.split(command)
    assert (python, script) == ("python", "train.py")
    assert compose_config(corrected).data.root == name


def test_a_number_in_a_yaml_file_needs_quotes_to_be_text(here):
    (here / "own/experiment").mkdir(parents=True)
    preset = here / "own/experiment/mine.yaml"
    for text, read in (("2024_01", None), ("'2024_01'", "2024_01")):
        preset.write_text(f"# @package _global_\ntracking:\n  experiment: {text}\n")
        chosen = [f"hydra.searchpath=[file://{here}/own]", "experiment=mine"]
        if read:
            assert compose_config(chosen).tracking.experiment == read
        else:
            with pytest.raises(UserError, match=r"tracking.experiment=202401: must be text .*, in quotes"):
                compose_config(chosen)


def test_a_swept_choice_that_lacks_a_key_is_named():
    check_overrides(["optimizer=sgd,muon", "optimizer.momentum=0.8"])
    check_overrides(["schedule=cosine,linear", "schedule.end=0.1", "seed=1,2"])
    with pytest.raises(UserError, match=r"optimizer.momentum: there is no such key.*\(optimizer=adamw lacks it\)"):
        check_overrides(["optimizer=sgd,adamw", "optimizer.momentum=0.8"])
