"""The runs of a cross-validation, one per fold of the training images, as overrides of train.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from experiments.config import Config, UserError
from experiments.config.keys import key_of
from experiments.config.loading import compose_config

FOLDS = 5  # without data.folds
OWN = ("evaluate_test", "data.skip_broken")  # keys that the check sets itself
PACKAGES = ("cleanlab", "cleanvision")


def fold_overrides(overrides: Sequence[str], search: Sequence[str] = ()) -> list[tuple[tuple[str, ...], Config]]:
    """(overrides of train.py, configuration) of the run of each fold.

    The test set is not evaluated, and pictures that cannot be read are left out.

    Args:
        search: overrides that only find the user's YAML files.

    Raises:
        UserError: listing every mistake; or MLflow, which keeps the networks, is off.
    """
    if typed := [text for text in overrides if key_of(text) == "data.fold"]:
        raise UserError(f"{typed[0]}: the check trains on every fold; set data.folds, the number of folds, only")
    own = [text for text in overrides if key_of(text) not in OWN]
    if not any(key_of(text) == "data.folds" for text in own):
        own.append(f"data.folds={FOLDS}")
    first = compose_config([*search, *own, "data.fold=0"])
    if first.tracking.uri is None:
        raise UserError(
            "tracking=none: the check loads the networks of its folds from MLflow, so it needs tracking=mlflow"
        )
    broken = ["data.skip_broken=true"] if first.data.of_files else []
    assert first.data.folds is not None
    folds = [(*own, *broken, "evaluate_test=false", f"data.fold={fold}") for fold in range(first.data.folds)]
    return [(fold, compose_config([*search, *fold])) for fold in folds]


def check_packages() -> None:
    """Check that the packages of the extra `labels` are installed.

    Raises:
        UserError: they are not; the message has the command that installs them.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"check_labels.py needs {' and '.join(missing)}: pip install -e '.[labels]'")
