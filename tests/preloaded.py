"""Imported once by the process that forks those of the tests: all that is slow, so that a kill hits the work and not the imports."""

import gc

import captum.attr
import mlflow.pytorch
import sklearn.datasets
import torch._dynamo
from hydra.core.plugins import Plugins

import experiments.comparison.page
import experiments.runs.tracker
import experiments.sweep.search
import unsynced  # noqa: F401

Plugins.instance()  # searches all packages for plugins
gc.freeze()  # else a collection in a forked process copies all pages
