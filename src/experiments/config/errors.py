"""The error for mistakes of the user."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: shown as one message without a traceback, exit code 2."""


class RunFailed(RuntimeError):
    """A run could not go on, and the message says all: exit code 1, without a traceback."""
