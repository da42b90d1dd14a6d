"""Imported once by the process that forks those of the tests. It has made a run, so that a kill hits the work and not the imports."""

import contextlib
import gc
import importlib
import io
import tempfile

from hydra.core.plugins import Plugins

from experiments.config.loading import compose_config
from experiments.experiment import run

MODULES = ("captum.attr", "sklearn.datasets", "unsynced", "experiments.sweep.search", "experiments.comparison.page")
for name in (*MODULES, "conftest"):  # with pytest, which the bodies of the processes import
    importlib.import_module(name)
Plugins.instance()  # searches all packages for plugins
tiny = compose_config(["data=digits", "model.filters=2", "model.dense_width=8", "training.epochs=1", "threads=1"])
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
    run(tiny)  # imports 800 modules, and fills the caches of PyTorch, MLflow and matplotlib: 1.4 s of each process
gc.collect()
gc.freeze()  # else a collection in a forked process copies all pages
