"""Through which everything passes that a run sends after its start: at once to a database, by a thread to a server.

The thread never lets the training wait. While the server is away, the journal keeps everything, and the thread tries again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from experiments.config.foreign import mask_passwords
from experiments.runs.journal import Entry, Journal

PATIENCE_SECONDS = 4.0  # at the end of a run, for a server that does not answer; and before a warning says so
# Seconds before an entry is tried again; then the last one again and again:
PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
HURRY = 4  # the number of pauses at the end of a run
Deliver = Callable[[Entry], None]
log = logging.getLogger(__name__)


class Direct:
    """Delivers at once; what cannot be delivered raises."""

    unsent = ""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def send(self, kind: str, **content: Any) -> None:
        self._deliver(Entry(kind, content))

    def results(self) -> dict[str, float]:
        return {}

    def flush(self) -> bool:
        return True

    def stop(self) -> None:
        pass


class Outbox:
    """Writes what is to be sent to the journal; a thread delivers it in order, as soon as the server answers.

    Args:
        deliver: is called again with an entry after any error: a reply may be lost after the server has stored the entry.
    """

    def __init__(self, journal: Journal, deliver: Deliver) -> None:
        self.journal, self._deliver = journal, deliver
        self._thread: threading.Thread | None = None
        self._work, self._awake = threading.Event(), threading.Event()
        self._tried = threading.Condition()
        self._stopped = self._hurry = self._said = False
        self._failing: float | None = None  # since when
        self._reason = ""

    @property
    def unsent(self) -> str:
        """What the server does not have, and why; empty if it has everything."""
        unsent = self.journal.unsent
        return f"{unsent} ({self._reason})" if unsent and self._reason else unsent

    def send(self, kind: str, **content: Any) -> None:
        """Keep something in the journal until it is delivered."""
        self.journal.add(Entry(kind, content))
        self._start()

    def _start(self) -> None:
        self._work.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failures = 0
        while not self._stopped:
            if not self.journal.pending:
                self._work.wait()
                self._work.clear()
            elif self._attempt():
                failures = 0
            else:
                pause = PAUSES[min(failures, (HURRY if self._hurry else len(PAUSES)) - 1)]
                failures += 1
                self._awake.wait(pause)
                self._awake.clear()

    def _attempt(self) -> bool:
        """Deliver what is next; whether that was successful."""
        entry, count = self.journal.next()
        try:
            self._deliver(entry)
        except Exception as error:  # of the network, a proxy, the server, or its storage of files: all are tried again
            self._note(error)
            return False
        self.journal.mark_sent(count)
        self._note(None)
        return True

    def _note(self, error: Exception | None) -> None:
        with self._tried:
            now = time.monotonic()
            self._failing = None if error is None else self._failing or now
            self._reason = "" if error is None else _in_short(error)
            self._tried.notify_all()
        if self._failing and not self._said and not self._hurry and now - self._failing > PATIENCE_SECONDS:
            kept = self.journal.path.parent
            log.warning(
                "the MLflow server does not answer (%s); the run goes on, and %s keeps its results", self._reason, kept
            )
            self._said = True
        elif self._said and not self.journal.pending:
            log.warning("the MLflow server answers again, and has everything")
            self._said = False

    def flush(self) -> bool:
        """Wait until everything is delivered, but not for long if the server does not answer; whether it has everything."""
        if not self.journal.pending:
            return True
        began = time.monotonic()
        self._hurry = True
        self._start()
        self._awake.set()
        with self._tried:
            while self.journal.pending:
                left = max(began, self._failing) + PATIENCE_SECONDS - time.monotonic() if self._failing else None
                if left is not None and left <= 0:
                    break
                self._tried.wait(left)
        self._hurry = False
        return not self.journal.pending

    def results(self) -> dict[str, float]:
        """The final metrics, as far as the journal has them."""
        return self.journal.results

    def stop(self) -> None:
        """Let the thread end; what is not delivered stays in the journal, which a finished run needs for nothing else."""
        if self.journal.finished and not self.journal.pending:
            self.journal.delete()
        self._stopped = True
        self._work.set()
        self._awake.set()


def send_left(journals: Iterable[Journal], uri: str) -> bool:
    """Send what earlier processes could not send, until the server does not answer; whether it has everything then."""
    from experiments.runs import store  # imports MLflow, as the next one does
    from experiments.runs.delivery import Delivery

    client = store.unasked(uri)
    for journal in journals:
        run, what = journal.run, journal.unsent
        box = Outbox(journal, Delivery(client, run["experiment_id"], run["run_id"], journal.path.parent))
        sent = box.flush()
        box.stop()
        if not sent:
            return False
        log.warning("sent to the MLflow server what it lacked of %s: %s", run["name"], what)
    return True


def _in_short(error: BaseException) -> str:
    """The first line of the error that led to this one, without passwords: it says more than MLflow's."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    lines = str(error).strip().splitlines()
    text = mask_passwords(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    return text if len(text) <= 120 else f"{text[:119]}…"
