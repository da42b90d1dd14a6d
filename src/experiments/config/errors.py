"""What the user did wrong."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's: shown as one message without a traceback, exit code 2."""
