"""When a run stops before its end: signals and a time limit, agreed on by all processes between two updates."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A launcher hands on the signal that its workers get from the terminal or the scheduler as well: not a second one.
ONE_SIGNAL = 2.0  # seconds
TIME_IS_UP = 255  # stands beside the signals' numbers


class Stopped(Exception):
    """The run stops before its end, and nothing is lost; the text says why and where it can go on."""


class Stopping:
    """Listens for SIGTERM, SIGINT and SIGUSR1, and to the clock.

        with Stopping(max_hours) as stopping:
            ...                        # a signal raises Stopped at once
            stopping.between_iterations()
            for ...:                   # from here on a signal waits until it is asked for
                if reason := stopping.agreed():
                    ...                # save, then raise Stopped

    A second signal, ONE_SIGNAL seconds or more after the first, ends the process at once, also while it waits for
    another process or for the device: a thread of its own listens for it.

    Args:
        max_hours: from now; 0: no limit.
        timeout_minutes: how long a process waits for the others' answer before it fails.
    """

    def __init__(self, max_hours: float = 0.0, timeout_minutes: float = 30.0):
        self.max_hours, self.timeout_minutes = max_hours, timeout_minutes
        self.deadline = time.monotonic() + 3600 * max_hours if max_hours else math.inf
        self.signal: int | None = None
        self._first, self._patient, self._group = math.inf, False, None

    def __enter__(self) -> Stopping:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=leave_signals_to_the_parent)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.close()

    def between_iterations(self) -> None:
        """From now on a signal stops the run only where `agreed` is asked. Collective."""
        self._patient = True
        if distributed.is_initialized() and distributed.get_backend() != "gloo":
            # Asking over NCCL would wait for the GPU.
            self._group = distributed.new_group(backend="gloo", timeout=timedelta(minutes=self.timeout_minutes))
        if self.signal is not None:
            raise Stopped(f"stopped by {name_of(self.signal)} before the first iteration")

    def agreed(self) -> str | None:
        """Why the run should stop now, the same on all processes; None if it should go on. Collective."""
        reason = TIME_IS_UP if time.monotonic() >= self.deadline else self.signal or 0
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            found = torch.tensor(reason)
            distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._group)
            reason = int(found)
        if reason == TIME_IS_UP:
            return f"--max_hours {self.max_hours:g} are over"
        return f"stopped by {name_of(reason)}" if reason else None

    def _received(self, number: int, _frame: object) -> None:
        """In the main thread, between two of its instructions."""
        self.signal = number
        if not self._patient:
            self._patient = True  # once is enough: the way out may take its time
            raise Stopped(f"stopped by {name_of(number)} before the first iteration")

    def _listen(self) -> None:
        """In a thread of its own: gets a signal's number as soon as it comes, whatever the main thread waits for."""
        with self._reader as reader:
            while received := reader.recv(1):
                if received[0] not in SIGNALS:  # any signal with a Python handler comes here, such as SIGCHLD
                    continue
                self._first = min(self._first, time.monotonic())
                if time.monotonic() - self._first >= ONE_SIGNAL:
                    print(f"{name_of(received[0])} again: gone without saving", file=sys.stderr, flush=True)
                    os._exit(128 + received[0])


def leave_signals_to_the_parent(_worker: int = 0) -> None:
    """For loader processes: a signal to the whole job must not take the data away under the last iteration."""
    with contextlib.suppress(ValueError):  # forked by a thread: it was not listening
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def name_of(number: int) -> str:
    return signal.Signals(number).name
