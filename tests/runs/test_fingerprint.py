"""The identity of a run."""

from experiments.config.loading import compose_config
from experiments.runs.fingerprint import fingerprint


def test_the_fingerprint_is_what_determines_the_numbers(here):
    def of(*overrides, digest="data"):
        return fingerprint(compose_config(["data=digits", *overrides]), "cpu", digest)

    assert of() == of("resume=false") == of("tracking=none") == of("outputs=elsewhere") == of("tracking.run_name=a")
    changes = (
        "seed=1",
        "model.filters=8",
        "optimizer.lr=0.01",
        "training.epochs=1",
        "data.mean=[1,0,0]",
        "precision=bf16",
        "evaluation.tta=flip",
        "schedule=cosine",
    )
    assert len({of(), of(digest="other"), *(of(change) for change in changes)}) == len(changes) + 2

    (here / "own_network.py").write_text("class Net: pass\n")
    first = of("model._target_=own_network.Net")
    (here / "own_network.py").write_text(
        '"""Nor a docstring."""\n# a comment changes nothing\nclass Net:\n    """Nor this."""\n'
    )
    assert of("model._target_=own_network.Net") == first
    (here / "own_network.py").write_text("class Net: width = 3\n")
    assert of("model._target_=own_network.Net") != first
