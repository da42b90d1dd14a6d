"""A config-driven experiment framework for image classification."""

__version__ = "0.1.0"
