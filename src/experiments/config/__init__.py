"""The configuration: its keys, their types and ranges, and the settings class of each choice.

All default values are in YAML (`conf/`), none in the classes here. Nothing here imports torch, numpy or Hydra, so that a
mistake is reported before they are loaded; `composition` and `loading`, which import Hydra, are not exported.
"""

from experiments.config.data import (
    AugmentSettings,
    CifarSettings,
    CsvSettings,
    DataSettings,
    DigitsSettings,
    ExtraImages,
    ImageFolderSettings,
    PictureSettings,
)
from experiments.config.errors import UserError
from experiments.config.networks import MODELS, ModelSettings, feature_size
from experiments.config.schema import Config, EarlyStoppingSettings
from experiments.config.views import VIEWS

__all__ = [
    "MODELS",
    "VIEWS",
    "AugmentSettings",
    "CifarSettings",
    "Config",
    "CsvSettings",
    "DataSettings",
    "DigitsSettings",
    "EarlyStoppingSettings",
    "ExtraImages",
    "ImageFolderSettings",
    "ModelSettings",
    "PictureSettings",
    "UserError",
    "feature_size",
]
