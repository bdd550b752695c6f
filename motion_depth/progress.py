"""Progress bars: a line that moves on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LOG_INTERVAL = 10.0  # seconds


class ProgressBar(tqdm):
    """tqdm, except where stderr is no terminal: whole lines there, LOG_INTERVAL apart, and a last one when it is done.

    Messages (`ProgressBar.write`) and postfixes add no lines of the bar; one with leave=False has no last line, and one
    whose last line has just been written gets it only once.
    """

    def __init__(self, *args: object, **settings: object):
        self.in_log = not sys.stderr.isatty()
        self.next_line = time.monotonic() + LOG_INTERVAL
        self.shown: tuple[int, str | None] | None = None  # what the newest line says
        if self.in_log:
            settings |= {"mininterval": LOG_INTERVAL, "dynamic_ncols": False}
        super().__init__(*args, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if not self.in_log:
            return super().display(msg, pos)
        if time.monotonic() >= self.next_line:
            self._write_line()
        return True

    def clear(self, nolock: bool = False) -> None:
        if not self.in_log:
            super().clear(nolock)

    def close(self) -> None:
        if self.in_log and not self.disable:
            if self.leave is not False and self.shown != (self.n, self.postfix):
                self._write_line()
            self.delay = float("inf")  # to tqdm it has not been shown: there is nothing to take away
        super().close()

    def _write_line(self) -> None:
        self.next_line, self.shown = time.monotonic() + LOG_INTERVAL, (self.n, self.postfix)
        self.fp.write(f"{self}\n")
        self.fp.flush()
