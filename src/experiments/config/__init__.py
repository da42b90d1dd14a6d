"""What a configuration may hold: types, ranges, and which class a choice stands for.

YAML (`conf/`) owns every value; the classes here have no defaults. Nothing here imports torch, numpy or Hydra, so that a
mistake is reported before they are loaded; `composition` and `loading`, which import Hydra, are not exported.
"""

from experiments.config.constraints import Between, CountOrShare, Positive
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
from experiments.config.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    AdamSettings,
    ConstantSettings,
    DecaySettings,
    MuonSettings,
    OptimizerSettings,
    PeakSettings,
    ScheduleSettings,
    SGDSettings,
    StepsSettings,
)
from experiments.config.schema import (
    VIEWS,
    Config,
    EarlyStoppingSettings,
    EvaluationSettings,
    SweepSettings,
    TrackingSettings,
    TrainingSettings,
)

__all__ = [
    "MODELS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SOURCES",
    "VIEWS",
    "AdamSettings",
    "AugmentSettings",
    "Between",
    "CNNSettings",
    "CifarSettings",
    "Config",
    "ConstantSettings",
    "CountOrShare",
    "CustomSourceSettings",
    "DataSettings",
    "DecaySettings",
    "DigitsSettings",
    "EarlyStoppingSettings",
    "EvaluationSettings",
    "ExtraImages",
    "FastNetSettings",
    "ImageFolderSettings",
    "ModelSettings",
    "MuonSettings",
    "OptimizerSettings",
    "PeakSettings",
    "Positive",
    "SGDSettings",
    "ScheduleSettings",
    "StepsSettings",
    "SweepSettings",
    "TrackingSettings",
    "TrainingSettings",
    "UserError",
    "feature_size",
]
