"""The error of a user's mistake."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: shown as one message without a traceback, exit code 2."""
