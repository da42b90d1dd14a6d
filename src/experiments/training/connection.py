"""What the processes of a run tell each other outside of its steps, through the store that torchrun serves.

Here a process waits for another one however long it takes, as long as that one shows that it lives.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from torch import distributed as dist

from experiments.config import UserError
from experiments.config.errors import RunFailed
from experiments.config.processes import launched

T = TypeVar("T")
ALIVE, LOST = 2.0, 30.0  # seconds between two signs of life of a process, and without one until it counts as lost
GOODBYE = 5.0  # seconds that a process waits for the others before it ends with an error: they end in the same way
# In the messages of errors of the communication, which have no class of their own.
BROKEN = ("gloo", "NCCL", "Connection", "Timed out", "timed out", "Broken pipe", "socket", "recvValue")


class Connection:
    """This process, number `rank` of `count`, among the others.

    Attributes:
        store: of keys and values, for all processes.
    """

    def __init__(self, rank: int, count: int, how_to_continue: str) -> None:
        self.rank, self.count, self._how_to_continue = rank, count, how_to_continue
        self.store, _, _ = next(iter(dist.rendezvous("env://")))
        alive, _, _ = next(iter(dist.rendezvous("env://")))  # of its own: a connection answers one call at a time
        threading.Thread(target=self._show_life, args=(alive,), daemon=True).start()
        self._turns, self._seen = 0, dict.fromkeys(range(count), (b"", time.monotonic()))

    def _show_life(self, store: Any) -> None:
        with contextlib.suppress(Exception):  # torchrun has ended; the main thread finds out
            for number in range(10**9):
                store.set(f"alive/{self.rank}", str(number))
                time.sleep(ALIVE)

    def decided(self, decide: Callable[[], T]) -> T:
        """What `decide` returns in rank 0, in every process: None, or a value that JSON has."""
        if self.rank == 0:
            decision = decide()
            self.store.set(f"decision/{self._turns}", json.dumps(decision))
        self.meet(0)
        answer: T = json.loads(self.store.get(f"decision/{self._turns - 1}"))
        return answer

    def meet(self, *ranks: int) -> None:
        """Wait until these processes have come here too, however long it takes, unless one is lost."""
        turn, self._turns = self._turns, self._turns + 1
        self.store.set(f"arrived/{turn}/{self.rank}", "")
        pause = 0.0005
        for rank in ranks:
            while not self.store.check([f"arrived/{turn}/{rank}"]):
                self._raise_if_ended()
                number = self.store.get(f"alive/{rank}") if self.store.check([f"alive/{rank}"]) else b""
                if number != self._seen[rank][0]:
                    self._seen[rank] = number, time.monotonic()
                elif time.monotonic() - self._seen[rank][1] > LOST:
                    self._lost()
                time.sleep(pause)
                pause = min(2 * pause, 0.05)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Turn an error of the communication in this block into that of the process that has ended, or a message."""
        try:
            yield
        except dist.DistError:
            self._lost()
        except RuntimeError as error:
            if isinstance(error, RunFailed) or not any(word in str(error) for word in BROKEN):
                raise
            self._lost()

    def _lost(self) -> NoReturn:
        until = time.monotonic() + 1  # one that ends with an error has said so
        with contextlib.suppress(dist.DistError):  # torchrun has ended; the library prints a traceback for each call
            while time.monotonic() < until:
                self._raise_if_ended()
                time.sleep(0.05)
        raise RunFailed(
            f"one of the {self.count} processes of this run was killed, or does not answer{self._how_to_continue}"
        ) from None

    def _raise_if_ended(self) -> None:
        """Raise the error with which another process has ended."""
        if not self.store.check(["ended"]):
            return
        code, message = json.loads(self.store.get("ended"))
        raise {2: UserError(message), 130: KeyboardInterrupt()}.get(code) or RunFailed(message)

    def end(self, code: int, message: str) -> str:
        """Tell the others that this process ends with an error; the message to print, which only the first one has."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it when another process has ended
        lines = message.strip().splitlines() or [""]
        told = json.dumps([code, lines[-1] if code == 1 else message])
        try:
            first = self.store.add("first", 1) == 1
            if first:
                self.store.set("ended", told)
            self.store.set(f"left/{self.rank}", "")
            until = time.monotonic() + GOODBYE * first
            while time.monotonic() < until and not self.store.check([f"left/{rank}" for rank in range(self.count)]):
                time.sleep(0.02)
        except RuntimeError:  # the torchrun that serves the store has ended; on every other machine one process says so
            return message if launched().local_rank == 0 else ""
        return message if first else ""
