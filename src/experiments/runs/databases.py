"""Addresses of SQLite databases, whatever the name of their folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from experiments.config.start_checks import SQLITE

QUOTED = "sqlite+pysqlite:///"  # MLflow creates the folder of an address that begins with SQLITE, without unquoting it


def database_file(address: str) -> Path | None:
    """The absolute path of the file in an address, typed or of `database_address`; None for any other store."""
    if address.startswith(QUOTED):
        return Path(unquote(address.removeprefix(QUOTED)))
    if address.startswith(SQLITE):
        return Path(address.removeprefix(SQLITE)).expanduser().resolve()
    return None


def database_address(file: Path) -> str:
    """The address that SQLAlchemy reads as this file: `?` starts a query there, `%20` is a space, and Optuna fills in `{}`."""
    if not set("?%{}") & set(str(file)):
        return f"{SQLITE}{file}"
    from sqlalchemy import URL  # takes 0.2 s

    return URL.create(QUOTED.partition(":")[0], database=str(file)).render_as_string()
