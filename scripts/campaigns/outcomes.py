"""What a command leaves that must not depend on interruptions: everything but times and random ids."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from campaigns.processes import OUTPUT, call

TIMED = ("epoch_seconds", "images_per_second", "seconds")
TAGS = (
    "test_set_evaluations",
    "pruned",
    "failure",
    "epochs_trained",
    "epochs_saved",
    "objectives",
    "winner_command",
    "threads",
)
KEPT = ("model", "average", "best", "optimizer", "random", "stopping", "running")
RESULTS = re.compile(
    r"^((best|kept|test)/\S+ +[\d.]+|(train it|most confused): .*)"
)  # lines that a command prints at its end


def outcome(folder: Path) -> dict[str, Any]:
    """All of it, by name; lists keep what is there twice."""
    found: dict[str, Any] = {"runs": [], "multiruns": []}
    with _database(folder / "mlflow.db") as database:
        for run in database.execute("SELECT * FROM runs WHERE lifecycle_stage = 'active'").fetchall():
            tags = dict(
                database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run["run_uuid"],)).fetchall()
            )
            found["multiruns" if "sweep" in tags else "runs"].append(_run(database, run, tags))
    found = {
        kind: sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True)) for kind, entries in found.items()
    }
    found["checkpoints"] = _checkpoints(folder)
    found["trials"] = _trials(folder / "outputs/optuna.db")
    found["parts"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.part"))
    printed = (folder / OUTPUT).read_text(errors="replace")
    found["printed"] = [
        line for line in map(str.rstrip, printed.splitlines()) if RESULTS.match(line) and "most" not in line
    ]
    return found


@contextlib.contextmanager
def _database(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        yield connection


def _run(database: sqlite3.Connection, run: sqlite3.Row, tags: dict[str, str]) -> dict[str, Any]:
    """What MLflow has of a run; a metric that is logged twice is there twice."""
    number = (run["run_uuid"],)

    def rows(query: str) -> list[list[Any]]:
        return sorted(list(row) for row in database.execute(query, number))

    artifacts = _local(run["artifact_uri"])
    models = database.execute(
        "SELECT status, artifact_location FROM logged_models WHERE source_run_id = ? AND lifecycle_stage = 'active'",
        number,
    ).fetchall()
    metrics = rows("SELECT key, step, value FROM metrics WHERE run_uuid = ?")
    return {
        "name": run["name"],
        "status": run["status"],
        "tags": {key: tags[key] for key in TAGS if key in tags},
        "winners": len(tags.get("winner", "").split()),
        "forked": tags.get("forked_from", ":").partition(":")[2],
        "metrics": [row for row in metrics if row[0] not in TIMED],
        "timed": [row[:2] for row in metrics if row[0] in TIMED],
        "latest": [row for row in rows("SELECT key, step, value FROM latest_metrics WHERE run_uuid = ?") if row[0] not in TIMED],
        "params": [row for row in rows("SELECT key, value FROM params WHERE run_uuid = ?") if not row[0].startswith(("tracking", "outputs", "data.cache"))],
        "inputs": len(rows("SELECT source_id FROM inputs WHERE destination_id = ? AND source_type = 'DATASET'")),
        "outputs": len(rows("SELECT destination_id FROM inputs WHERE source_id = ?")),
        "models": [[model["status"], _digest(_local(model["artifact_location"]) / "data/weights.safetensors")] for model in models],
        "files": sorted(str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()),
        "history": _history(artifacts / "history.csv"),
        "confusion": _digest(artifacts / "confusion_matrix.csv"),
    }  # fmt: skip


def _local(location: str) -> Path:
    return Path(url2pathname(urlsplit(location).path))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "not there"


def _history(file: Path) -> list[list[str]]:
    """The table without the columns that have times."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [{name: value for name, value in row.items() if name not in TIMED} for row in csv.DictReader(lines)]
    return [[f"{name}={value}" for name, value in row.items()] for row in rows]


def _trials(file: Path) -> list[Any]:
    """The last trial of each point of a search: its state, parameters and values, and the values of its epochs."""
    if not file.exists():
        return []
    latest: dict[str, Any] = {}
    with _database(file) as database:
        for trial in database.execute("SELECT trial_id, state FROM trials ORDER BY number").fetchall():
            number = (trial["trial_id"],)

            def rows(query: str, number: tuple[int] = number) -> list[list[Any]]:
                return sorted(list(row) for row in database.execute(query, number))

            (point,) = rows("SELECT value_json FROM trial_user_attributes WHERE key = 'point' AND trial_id = ?")[0]
            values = rows("SELECT objective, value FROM trial_values WHERE trial_id = ?")
            epochs = rows("SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ?")
            params = rows("SELECT param_name, param_value FROM trial_params WHERE trial_id = ?")
            latest[point] = [point, trial["state"], params, values, epochs]
    return sorted(latest.values())


def _checkpoints(folder: Path) -> dict[str, str]:
    """SHA-256 of what each checkpoint holds, without times, by the identity of its run."""
    files = sorted(folder.glob("outputs/runs/*/checkpoint*.pt"))
    if not files:
        return {}
    call(_write_digests, files, folder / "digests.json")
    digests: dict[str, str] = json.loads((folder / "digests.json").read_text())
    (folder / "digests.json").unlink()
    return digests


def _write_digests(files: list[Path], result: Path) -> None:
    """In a process of its own, because the checkpoints are read by torch."""
    import torch

    digests: dict[str, str] = {}
    for file in files:
        content = torch.load(file, map_location="cpu", weights_only=True)
        digest = hashlib.sha256()
        history = [{name: value for name, value in epoch.items() if name not in TIMED} for epoch in content["history"]]
        for part in [*(content[key] for key in KEPT), history]:
            _update(digest, part)
        digests[f"{file.parent.name.partition('-')[0]}/{file.name}"] = digest.hexdigest()
    result.write_text(json.dumps(digests), encoding="utf-8")


def _update(digest: Any, value: Any) -> None:
    """Add a nested value with tensors to a digest."""
    if hasattr(value, "numpy"):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(str(key).encode())
            _update(digest, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _update(digest, item)
    else:
        digest.update(repr(value).encode())


def differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """In words, where two outcomes differ."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key in expected:
            yield from differences(expected[key], found[key], f"{place}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (first, second) in enumerate(zip(expected, found)):
            yield from differences(first, second, f"{place}/{number}")
    elif isinstance(expected, list) and isinstance(found, list):
        first, second = (Counter(json.dumps(item, sort_keys=True) for item in items) for items in (expected, found))
        yield f"{place}: missing {list((first - second).elements())[:3]!s:.600}, too many {list((second - first).elements())[:3]!s:.600}"
    elif expected != found:
        yield f"{place}: {expected!s:.300} became {found!s:.300}"
