"""Imported once by the process that forks those of the tests: all that is slow, so that a kill hits the work and not the imports."""

import gc
import importlib

from hydra.core.plugins import Plugins

SLOW = ["captum.attr", "torch._dynamo", "mlflow.pytorch", "sklearn.datasets", "unsynced"]
SLOW += [f"experiments.{name}" for name in ("runs.tracker", "sweep.search", "comparison.page", "experiment")]

for name in SLOW:
    importlib.import_module(name)
Plugins.instance()  # searches all packages for plugins
gc.freeze()  # else a collection in a forked process copies all pages
