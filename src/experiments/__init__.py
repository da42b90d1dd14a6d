"""A config-driven experiment framework for image classification.

from experiments import images, load, run
result = run("data=digits", "training.epochs=3")
best = load("best")
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.notebook import images, load, run

# mlflow reads these when it is imported, so they are set before that.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # three files of a few kilobytes
# How long a thread that waits for another one spins before it sleeps: by default 30 times as long, which keeps the thread
# that it waits for from running where other programs use the processors. Read when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = ["images", "load", "run"]


def __getattr__(name: str) -> Any:
    """`images`, `run` and `load` on first use: torch and mlflow take seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    from experiments import notebook

    return getattr(notebook, name)
