"""The configuration: its keys with their types and ranges, and the class of every choice.

YAML (`conf/`) owns every value; the classes here have no defaults. Nothing here imports torch, numpy or Hydra, so that a
mistake is reported before they are loaded; `composition` and `loading`, which import Hydra, are not exported.
"""

from experiments.config.constraints import Between, CountOrFraction, Positive
from experiments.config.data import (
    SOURCES,
    AugmentSettings,
    CifarSettings,
    CustomSourceSettings,
    DataSettings,
    DigitsSettings,
    ExtraImages,
    ImageFolderSettings,
)
from experiments.config.errors import UserError
from experiments.config.networks import MODELS, CNNSettings, FastNetSettings, ModelSettings, feature_size
from experiments.config.optimizers import OptimizerSettings, ScheduleSettings
from experiments.config.schema import (
    Config,
    EarlyStoppingSettings,
    EvaluationSettings,
    SweepSettings,
    TrackingSettings,
    TrainingSettings,
)
from experiments.config.views import VIEWS

__all__ = [
    "MODELS",
    "SOURCES",
    "VIEWS",
    "AugmentSettings",
    "Between",
    "CNNSettings",
    "CifarSettings",
    "Config",
    "CountOrFraction",
    "CustomSourceSettings",
    "DataSettings",
    "DigitsSettings",
    "EarlyStoppingSettings",
    "EvaluationSettings",
    "ExtraImages",
    "FastNetSettings",
    "ImageFolderSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Positive",
    "ScheduleSettings",
    "SweepSettings",
    "TrackingSettings",
    "TrainingSettings",
    "UserError",
    "feature_size",
]
