"""An MLflow server: reached at the start, asked again for seconds, and asked only once to create something.

MLflow's own client tries again for minutes, also to create a run: if the reply is lost, there are two. So it tries once here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import requests

from experiments.config import UserError
from experiments.config.foreign import mask_passwords

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE_SECONDS = 10.0  # for a server that fails between two calls
SHORT_SECONDS, LONG_SECONDS = 1.0, 120.0  # for a server at the start, and for one that is being restarted
PAUSES = (0.05, 0.2, 0.5, 1.0)  # seconds before a call is made again; then the last one again and again
BUSY = (408, 429, 500, 502, 503, 504)  # replies of a server, or of a proxy before it, that may be others soon
P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Unreachable(UserError):
    """No MLflow server answers."""


def ask_once() -> None:
    """Let MLflow make each request once, and wait for its reply for up to 30 seconds."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def reach(uri: str, patient: bool) -> None:
    """Check that a server answers, before MLflow asks it.

    Args:
        patient: wait up to two minutes for a server that is being restarted, and say so.

    Raises:
        Unreachable: it does not answer.
    """
    ask_once()
    try:
        _find(uri, SHORT_SECONDS)
    except Unreachable:
        if not patient:
            raise
        text = "tracking.uri=%s: no MLflow server answers there; waiting for it, two minutes at most"
        log.warning(text, mask_passwords(uri))
        _find(uri, LONG_SECONDS)


def _find(uri: str, patience: float) -> None:
    def ask() -> None:
        requests.get(f"{uri}/health", timeout=5).raise_for_status()

    try:
        again(patience, ask)
    except (Unreachable, requests.RequestException) as error:
        reason = error.__context__ if isinstance(error, Unreachable) else error
        raise Unreachable(f"no MLflow server answers there ({type(reason).__name__})") from None


def is_away(error: Exception) -> bool:
    """Whether an error says that there is no answer now; any other one is an answer."""
    reply = getattr(error, "response", None)
    if reply is not None:
        return reply.status_code in BUSY
    if hasattr(error, "get_http_status_code"):  # MLflow's errors; 500 also stands for no reply
        return error.get_http_status_code() in BUSY
    return isinstance(error, requests.RequestException)


def again(patience: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call again as long as the server does not answer.

    Raises:
        Unreachable: it did not for `patience` seconds.
    """
    began, tries = time.monotonic(), 0
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not is_away(error):
                raise
            if time.monotonic() - began > patience:
                raise Unreachable(f"the server does not answer any more ({str(error).splitlines()[0]})") from None
        time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        tries += 1


def ask(uri: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of MLflow, with `again` if it asks a server."""
    return again(PATIENCE_SECONDS, call, *args, **kwargs) if uri.startswith("http") else call(*args, **kwargs)


class AskingAgain:
    """An MLflow client each of whose calls is made with `again`; what a call creates is looked for before it is made again."""

    def __init__(self, client: MlflowClient, patience: float) -> None:
        self._client, self._patience = client, patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method
        return lambda *args, **kwargs: again(self._patience, method, *args, **kwargs)

    def create_run(self, experiment_id: str, run_name: str, tags: Mapping[str, str]) -> Any:
        start, made = int(time.time() * 1000), [False]

        def create() -> Any:
            if made[0]:
                for run in self._client.search_runs([experiment_id], f"attributes.start_time = {start}"):
                    if tags.items() <= run.data.tags.items():
                        return run
            made[0] = True
            return self._client.create_run(experiment_id, start, dict(tags), run_name)

        return again(self._patience, create)

    def create_experiment(self, name: str, artifacts: str | None, tags: Mapping[str, Any]) -> str:
        def create() -> str:
            if known := self._client.get_experiment_by_name(name):
                return str(known.experiment_id)
            return self._client.create_experiment(name, artifacts, dict(tags))

        return again(self._patience, create)

    def delete_tag(self, run_id: str, key: str) -> None:
        def delete() -> None:  # MLflow raises if it is not there
            if key in self._client.get_run(run_id).data.tags:
                self._client.delete_tag(run_id, key)

        again(self._patience, delete)
